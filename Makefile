# Two commands matter: `make lab` to study, `make test` to prove. Each target sets up what it needs
# in .venv (at no cost when that is done) and hands over to the `companion` command.
#
#   make lab PYTHON=python3.12          another Python for the set-up
#   make demo ARGS=circuit_breaker      arguments for the command

PYTHON ?= python3
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup lab test demo serve book bench check doctor

help: ## say what there is (this)
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1@\2/p' Makefile | tr '@' '\t' | expand -t 16

setup: ## set .venv up, which the others do by themselves
	@$(PYTHON) bootstrap.py

lab: setup ## study: JupyterLab at notebooks/00_start_here.ipynb
	@.venv/bin/companion lab $(ARGS)

test: setup ## prove: every test, stored outputs and other parameters included
	@.venv/bin/companion test $(ARGS)

demo: setup ## show: the interactive demos, for a projector
	@.venv/bin/companion demo $(ARGS)

serve: setup ## score: the fraud-scoring API on this machine, with a key for this run
	@.venv/bin/companion serve $(ARGS)

book: setup ## print: all notebooks as one HTML book with search
	@.venv/bin/companion book $(ARGS)

bench: setup ## measure: ours beside the incumbents
	@.venv/bin/companion bench $(ARGS)

check: setup ## lint: ruff, mypy and the floors of the house
	@.venv/bin/companion check $(ARGS)

doctor: setup ## ask what is wrong with this machine
	@.venv/bin/companion doctor $(ARGS)
