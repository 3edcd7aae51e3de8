"""The template: a process that has imported the heavy libraries and is forked once per kernel.

Runs by path, ``python warm_template --listener FD --socket PATH``, and calls itself
``warm_template`` then, so that the package around it is never imported; only the standard library
is used before the libraries themselves. It ends after ``COMPANION_WARM_IDLE`` seconds without a
kernel (default 600), and ``COMPANION_WARM_LIBRARIES`` (comma-separated) takes the place of
``libraries.PRELOADED``.

macOS: forking after Accelerate or Objective-C frameworks were used can abort the child; tested on
Linux, and ``COMPANION_WARM=0`` turns the whole mechanism off.
"""
