from candor.rpc.pb.candor.v1 import candor_pb2 as _candor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReportState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPORT_STATE_UNSPECIFIED: _ClassVar[ReportState]
    REPORT_STATE_QUEUED: _ClassVar[ReportState]
    REPORT_STATE_RUNNING: _ClassVar[ReportState]
    REPORT_STATE_SUCCEEDED: _ClassVar[ReportState]
    REPORT_STATE_FAILED: _ClassVar[ReportState]
    REPORT_STATE_CANCELLED: _ClassVar[ReportState]
    REPORT_STATE_INCOMPLETE: _ClassVar[ReportState]
REPORT_STATE_UNSPECIFIED: ReportState
REPORT_STATE_QUEUED: ReportState
REPORT_STATE_RUNNING: ReportState
REPORT_STATE_SUCCEEDED: ReportState
REPORT_STATE_FAILED: ReportState
REPORT_STATE_CANCELLED: ReportState
REPORT_STATE_INCOMPLETE: ReportState

class CreateReportRequest(_message.Message):
    __slots__ = ("model", "data", "image_count", "attacks", "attacks_only", "quick", "seed", "steps", "batch_size", "independent", "undefended", "compare", "idempotency_key", "budget")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    IMAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    ATTACKS_FIELD_NUMBER: _ClassVar[int]
    ATTACKS_ONLY_FIELD_NUMBER: _ClassVar[int]
    QUICK_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    INDEPENDENT_FIELD_NUMBER: _ClassVar[int]
    UNDEFENDED_FIELD_NUMBER: _ClassVar[int]
    COMPARE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    model: str
    data: str
    image_count: int
    attacks: _containers.RepeatedScalarFieldContainer[str]
    attacks_only: bool
    quick: bool
    seed: int
    steps: int
    batch_size: int
    independent: str
    undefended: str
    compare: str
    idempotency_key: str
    budget: str
    def __init__(self, model: _Optional[str] = ..., data: _Optional[str] = ..., image_count: _Optional[int] = ..., attacks: _Optional[_Iterable[str]] = ..., attacks_only: _Optional[bool] = ..., quick: _Optional[bool] = ..., seed: _Optional[int] = ..., steps: _Optional[int] = ..., batch_size: _Optional[int] = ..., independent: _Optional[str] = ..., undefended: _Optional[str] = ..., compare: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., budget: _Optional[str] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("name", "state", "done", "cancel_requested", "request", "progress", "error", "response", "create_time", "start_time", "end_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: ReportState
    done: bool
    cancel_requested: bool
    request: CreateReportRequest
    progress: ReportProgress
    error: ReportFailure
    response: ReportResult
    create_time: float
    start_time: float
    end_time: float
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[ReportState, str]] = ..., done: _Optional[bool] = ..., cancel_requested: _Optional[bool] = ..., request: _Optional[_Union[CreateReportRequest, _Mapping]] = ..., progress: _Optional[_Union[ReportProgress, _Mapping]] = ..., error: _Optional[_Union[ReportFailure, _Mapping]] = ..., response: _Optional[_Union[ReportResult, _Mapping]] = ..., create_time: _Optional[float] = ..., start_time: _Optional[float] = ..., end_time: _Optional[float] = ...) -> None: ...

class ReportProgress(_message.Message):
    __slots__ = ("fraction", "stage", "images_done", "image_count", "attack_ara", "seconds_left")
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    IMAGES_DONE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    ATTACK_ARA_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    fraction: float
    stage: str
    images_done: int
    image_count: int
    attack_ara: float
    seconds_left: float
    def __init__(self, fraction: _Optional[float] = ..., stage: _Optional[str] = ..., images_done: _Optional[int] = ..., image_count: _Optional[int] = ..., attack_ara: _Optional[float] = ..., seconds_left: _Optional[float] = ...) -> None: ...

class ReportFailure(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class ReportResult(_message.Message):
    __slots__ = ("files", "metrics", "warnings", "not_tried")
    FILES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    NOT_TRIED_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[ReportFile]
    metrics: _containers.RepeatedCompositeFieldContainer[_candor_pb2.Metric]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    not_tried: _containers.RepeatedCompositeFieldContainer[NotTried]
    def __init__(self, files: _Optional[_Iterable[_Union[ReportFile, _Mapping]]] = ..., metrics: _Optional[_Iterable[_Union[_candor_pb2.Metric, _Mapping]]] = ..., warnings: _Optional[_Iterable[str]] = ..., not_tried: _Optional[_Iterable[_Union[NotTried, _Mapping]]] = ...) -> None: ...

class NotTried(_message.Message):
    __slots__ = ("attack", "image_count", "planned_count", "reasons")
    ATTACK_FIELD_NUMBER: _ClassVar[int]
    IMAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    PLANNED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    attack: str
    image_count: int
    planned_count: int
    reasons: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, attack: _Optional[str] = ..., image_count: _Optional[int] = ..., planned_count: _Optional[int] = ..., reasons: _Optional[_Iterable[str]] = ...) -> None: ...

class ReportFile(_message.Message):
    __slots__ = ("name", "byte_count", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    byte_count: int
    sha256: str
    def __init__(self, name: _Optional[str] = ..., byte_count: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class GetReportRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CancelReportRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListReportsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "state")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    state: ReportState
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., state: _Optional[_Union[ReportState, str]] = ...) -> None: ...

class ListReportsResponse(_message.Message):
    __slots__ = ("reports", "next_page_token")
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedCompositeFieldContainer[Report]
    next_page_token: str
    def __init__(self, reports: _Optional[_Iterable[_Union[Report, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DownloadReportRequest(_message.Message):
    __slots__ = ("name", "file")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    name: str
    file: str
    def __init__(self, name: _Optional[str] = ..., file: _Optional[str] = ...) -> None: ...

class DownloadReportResponse(_message.Message):
    __slots__ = ("file", "chunk")
    FILE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    file: ReportFile
    chunk: bytes
    def __init__(self, file: _Optional[_Union[ReportFile, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...
