"""Warm kernels: a notebook starts with its libraries already imported.

Importing torch, scikit-learn, mlflow and their like takes most of the time of a small notebook. A
*template* process imports them once; every kernel is then a fork of it, which the operating system
makes in milliseconds by sharing memory pages until one side writes to them (copy-on-write). The
idea is old: Emacs dumped its heap, Android forks each application from a *zygote*, and gunicorn
does it as ``preload_app``.

    provisioner   what Jupyter calls instead of starting a process itself
    client        finds the template of this environment, or starts one
    process       a forked kernel, seen from outside as a ``subprocess.Popen``
    warm_template the process that is forked; runs by path and never imports this package
    spec          the environment's own ``python3`` kernelspec

Nothing of ``companion`` and nothing of the user's own is ever imported in the template, so an edit
counts in the next kernel. Import the modules by their full names; this file imports nothing.
"""
