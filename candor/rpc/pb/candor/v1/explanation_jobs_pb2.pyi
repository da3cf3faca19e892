from candor.rpc.pb.candor.v1 import candor_pb2 as _candor_pb2
from candor.rpc.pb.candor.v1 import reports_pb2 as _reports_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateExplanationJobRequest(_message.Message):
    __slots__ = ("model", "folder", "target", "rho", "solver", "steps", "seed", "measure_radius", "batch_size", "idempotency_key", "norm")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    RHO_FIELD_NUMBER: _ClassVar[int]
    SOLVER_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MEASURE_RADIUS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    model: str
    folder: str
    target: _candor_pb2.ClassRef
    rho: float
    solver: str
    steps: int
    seed: int
    measure_radius: bool
    batch_size: int
    idempotency_key: str
    norm: _candor_pb2.Norm
    def __init__(self, model: _Optional[str] = ..., folder: _Optional[str] = ..., target: _Optional[_Union[_candor_pb2.ClassRef, _Mapping]] = ..., rho: _Optional[float] = ..., solver: _Optional[str] = ..., steps: _Optional[int] = ..., seed: _Optional[int] = ..., measure_radius: _Optional[bool] = ..., batch_size: _Optional[int] = ..., idempotency_key: _Optional[str] = ..., norm: _Optional[_Union[_candor_pb2.Norm, str]] = ...) -> None: ...

class ExplanationJob(_message.Message):
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
    state: _reports_pb2.ReportState
    done: bool
    cancel_requested: bool
    request: CreateExplanationJobRequest
    progress: ExplanationJobProgress
    error: _reports_pb2.ReportFailure
    response: ExplanationJobResult
    create_time: float
    start_time: float
    end_time: float
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[_reports_pb2.ReportState, str]] = ..., done: _Optional[bool] = ..., cancel_requested: _Optional[bool] = ..., request: _Optional[_Union[CreateExplanationJobRequest, _Mapping]] = ..., progress: _Optional[_Union[ExplanationJobProgress, _Mapping]] = ..., error: _Optional[_Union[_reports_pb2.ReportFailure, _Mapping]] = ..., response: _Optional[_Union[ExplanationJobResult, _Mapping]] = ..., create_time: _Optional[float] = ..., start_time: _Optional[float] = ..., end_time: _Optional[float] = ...) -> None: ...

class ExplanationJobProgress(_message.Message):
    __slots__ = ("fraction", "stage", "images_done", "image_count", "seconds_left")
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    IMAGES_DONE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    fraction: float
    stage: str
    images_done: int
    image_count: int
    seconds_left: float
    def __init__(self, fraction: _Optional[float] = ..., stage: _Optional[str] = ..., images_done: _Optional[int] = ..., image_count: _Optional[int] = ..., seconds_left: _Optional[float] = ...) -> None: ...

class ExplanationJobResult(_message.Message):
    __slots__ = ("files", "image_count", "error_count", "flip_count", "median_radius")
    FILES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    ERROR_COUNT_FIELD_NUMBER: _ClassVar[int]
    FLIP_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_RADIUS_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[_reports_pb2.ReportFile]
    image_count: int
    error_count: int
    flip_count: int
    median_radius: float
    def __init__(self, files: _Optional[_Iterable[_Union[_reports_pb2.ReportFile, _Mapping]]] = ..., image_count: _Optional[int] = ..., error_count: _Optional[int] = ..., flip_count: _Optional[int] = ..., median_radius: _Optional[float] = ...) -> None: ...

class GetExplanationJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CancelExplanationJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListExplanationJobsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "state")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    state: _reports_pb2.ReportState
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., state: _Optional[_Union[_reports_pb2.ReportState, str]] = ...) -> None: ...

class ListExplanationJobsResponse(_message.Message):
    __slots__ = ("jobs", "next_page_token")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[ExplanationJob]
    next_page_token: str
    def __init__(self, jobs: _Optional[_Iterable[_Union[ExplanationJob, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DownloadExplanationJobRequest(_message.Message):
    __slots__ = ("name", "file")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    name: str
    file: str
    def __init__(self, name: _Optional[str] = ..., file: _Optional[str] = ...) -> None: ...

class DownloadExplanationJobResponse(_message.Message):
    __slots__ = ("file", "chunk")
    FILE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    file: _reports_pb2.ReportFile
    chunk: bytes
    def __init__(self, file: _Optional[_Union[_reports_pb2.ReportFile, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...
