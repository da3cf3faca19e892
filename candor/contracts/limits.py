"""Limits and defaults of the public contract, each once."""

MAX_ENCODED_BYTES = 8 * 1024 * 1024  # one encoded image
MAX_PIXELS = 16_777_216  # of an encoded image, before resizing
MAX_JPEG_SCANS = 64  # a progressive image has about 10; each costs a pass over all pixels
MAX_IMAGE_READS = 50_000  # of a decoder while it reads one image; a large PNG needs about 4,000
MAX_BODY_BYTES = 16 * 1024 * 1024  # one request on the wire
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")

MAX_TARGETS = 32
MAX_RHOS = 32
MAX_EXPLANATIONS = 64  # targets x rhos of one request
MAX_TOP_K = 1000
MAX_INSTANCES = 32  # images of one request of the Open Inference Protocol or KServe v1
MAX_STEPS = 2000
MAX_SEED = 2**32 - 1
MAX_ANNOTATOR_CHARS = 60
MAX_CANDIDATE = 2**31 - 1  # number of a candidate in the store
MAX_TIMEOUT_SECONDS = 86400.0

DEFAULT_TOP_K = 5
DEFAULT_STEPS = 450  # N of Algorithm 1
DEFAULT_SOLVER = "paper"
SOLVERS = ("paper", "fast")
FAST_EXPLAIN_STEPS = 8
FAST_RADIUS_STEPS = 52  # at most: most radii are settled sooner

# Robustness reports; the names are those of the registries of `candor.data` and `audit`.
DATA_SETS = ("cifar10", "coco", "folder", "imagenet", "jsrt")
ATTACKS = (*SOLVERS, "ddn", "fmn", "cw", "fgsm", "pgd", "autoattack", "square", "label-only")
MIN_REPORT_IMAGES, MAX_REPORT_IMAGES = 2, 1_000_000
DEFAULT_REPORT_IMAGES = 1000
MAX_REPORT_BATCH = 1024
DEFAULT_REPORT_BATCH = 32
MAX_KEY_CHARS = 100  # of an idempotency key
MAX_PAGE_SIZE = 100
DEFAULT_PAGE_SIZE = 20

IMPERCEPTIBLE_RMSE = 0.01  # IV-B: "virtually imperceptible" on CIFAR-10
CONFIDENT_MARGIN = 0.5  # III-H: how far an annotation candidate's class must lead


def default_steps(solver: str, *, explains: bool) -> int:
    """Steps of a search that names none: of an explanation, or of a radius."""
    if solver != "fast":
        return DEFAULT_STEPS
    return FAST_EXPLAIN_STEPS if explains else FAST_RADIUS_STEPS
