"""Every contract is tested for every written question."""

import pytest

from companion.study.catalogue import read_catalogue
from companion.study.exercise import load_exercise
from companion.study.workbook import Workbook

WORKBOOK = Workbook.find()
ANSWERS = list(read_catalogue(WORKBOOK).answers.values())


@pytest.fixture(scope="session")
def workbook():
    return WORKBOOK


@pytest.fixture(params=ANSWERS, ids=lambda answer: answer.stem)
def answer(request):
    return request.param


@pytest.fixture
def exercise(answer):
    return load_exercise(WORKBOOK.exercise(answer.stem))
