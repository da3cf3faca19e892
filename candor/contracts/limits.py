"""Limits and defaults of the public contract, each in one place."""

from candor import terms

MAX_ENCODED_BYTES = 8 * 1024 * 1024  # one encoded image
MAX_PIXELS = 16_777_216  # of an encoded image, before resizing
MAX_JPEG_SCANS = 64  # a progressive image has about 10; each is a pass over all pixels
MAX_IMAGE_READS = 50_000  # reads and parts of one image; a large PNG needs about 4,000 reads
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

# Robustness reports; the names are those of the registries of `candor.data` and `audit`.
DATA_SETS = ("cifar10", "coco", "folder", "imagenet", "jsrt")
BUDGETS = ("quick", "standard", "full")  # of a report, the smallest first
DEFAULT_BUDGET = "standard"
ATTACKS = (*terms.SOLVERS, "ddn", "fmn", "cw", "fgsm", "pgd", "autoattack", "square", "label-only")
MIN_REPORT_IMAGES, MAX_REPORT_IMAGES = 2, 1_000_000
DEFAULT_REPORT_IMAGES = 1000
MAX_REPORT_BATCH = 1024
DEFAULT_REPORT_BATCH = 32
MAX_FOLDER_CHARS = 200  # of the folder of a job over images
MAX_KEY_CHARS = 100  # of an idempotency key
MAX_PAGE_SIZE = 100
DEFAULT_PAGE_SIZE = 20
