"""The shipped models of 32 x 32 pixels, on which speed, load and faults are measured."""

SMALL_MODEL = "cifar10-robust"
SMALL_PLAIN_MODEL = "cifar10-plain"
