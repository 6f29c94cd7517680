"""Files to the service and from it."""

import hashlib

import grpc
import pytest

from nablad import AlreadyExistsError, InternalError, InvalidRequestError, NotFoundError
from nablad.v1 import datasets_pb2, models_pb2

MEBIBYTE = 1 << 20


def _keep(received):
    def handler(requests, _context):
        received.extend(requests)
        return datasets_pb2.AddDatasetResponse(dataset=datasets_pb2.Dataset(name=received[0].header.name))

    return handler


@pytest.fixture
def two_files(tmp_path):
    """A file of two and a half chunks, and a short one."""
    contents = {"features.npy": bytes(range(256)) * (10 * MEBIBYTE // 1024), "targets.npy": b"seven"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents]


def test_files_arrive_whole_in_chunks_after_one_header(client, service, two_files):
    """The chunks are at most 1 MiB, come to the files' bytes in order, and the header describes them."""
    received = []
    service.handlers["AddDataset"] = _keep(received)
    added = client.add_dataset("digits", two_files, target_column="y", classes=10, target_kind=1)
    header, chunks = received[0].header, [request.chunk for request in received[1:]]
    assert added.name == header.name == "digits"
    assert [(file.filename, file.size_bytes) for file in header.data_files.files] == [
        ("features.npy", 10 * MEBIBYTE // 4),
        ("targets.npy", 5),
    ]
    assert (header.data_files.target_column, header.data_files.classes, header.data_files.target_kind) == ("y", 10, 1)
    assert max(map(len, chunks)) == MEBIBYTE
    assert b"".join(chunks) == b"".join(file.read_bytes() for file in two_files)


def test_progress_tells_the_bytes_sent_before_each_chunk(client, service, two_files):
    """The callback counts up from 0 and knows the total."""
    service.handlers["AddDataset"] = _keep([])
    told = []
    client.add_dataset("digits", two_files, progress=lambda sent, total: told.append((sent, total)))
    total = sum(file.stat().st_size for file in two_files)
    assert told == [(0, total), (MEBIBYTE, total), (2 * MEBIBYTE, total), (total - 5, total)]


def test_the_sentence_of_a_service_that_refuses_early_wins(client, service, refuse, tmp_path):
    """A service that has seen enough after the header is heard, however much there is left to send."""
    big = tmp_path / "big.npz"
    with big.open("wb") as file:
        file.truncate(64 * MEBIBYTE)
    refusal = refuse(grpc.StatusCode.ALREADY_EXISTS, "there is a data set big already")

    def handler(requests, context):
        next(requests)
        refusal(requests, context)

    service.handlers["AddDataset"] = handler
    with pytest.raises(AlreadyExistsError, match="there is a data set big already"):
        client.add_dataset("big", [big])


def test_a_missing_file_is_found_before_anything_is_sent(client, service, tmp_path):
    """A file that is not there never reaches the service."""
    with pytest.raises(FileNotFoundError):
        client.add_dataset("digits", [tmp_path / "missing.npz"])
    assert service.calls == []


def test_an_error_while_sending_reaches_the_caller_and_no_whole_file_the_service(client, service, two_files):
    """What goes wrong on the thread that sends is raised where `add_dataset` was called."""
    received = []
    service.handlers["AddDataset"] = _keep(received)

    def fail_at_the_end(sent, total):
        if sent == total - 5:
            raise OSError(5, "the disk has gone")

    with pytest.raises(OSError, match="the disk has gone"):
        client.add_dataset("digits", two_files, progress=fail_at_the_end)
    assert sum(len(request.chunk) for request in received) < sum(file.stat().st_size for file in two_files)


@pytest.fixture
def exported(service):
    """A service with one model of 300,000 bytes; gives its bytes."""
    content = bytes(range(250)) * 1200

    def chunks(*_):
        for start in range(0, len(content), 100_000):
            yield models_pb2.ExportModelResponse(chunk=content[start : start + 100_000])

    model = models_pb2.Model(model_id="m", sha256=hashlib.sha256(content).hexdigest())
    service.handlers["GetModel"] = lambda *_: models_pb2.GetModelResponse(model=model)
    service.handlers["ExportModel"] = chunks
    return content


def test_an_exported_model_is_the_service_s_file_and_nothing_else_is_left(client, exported, tmp_path):
    """The folder holds the model's file, byte for byte, and no temporary one."""
    path = client.export_model("m", tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == exported


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("m.onnx", "ONNX is not supported yet"),
        ("m.pt", '".pt" is the ending of no format'),
        ("m.safetensors.gz", '".gz" is the ending of no format'),
        ("m", "there is no ending"),
        ("-", "there is no ending"),
        (".safetensors", "there is no ending"),
    ],
)
@pytest.mark.parametrize("there_before", [False, True])
def test_the_ending_of_a_file_says_its_format_and_another_one_is_refused_before_anything_is_asked(
    client, service, exported, tmp_path, name, words, there_before
):
    """The sentence says what is allowed, and --overwrite destroys nothing either."""
    path = tmp_path / name
    if there_before:
        path.write_bytes(b"precious")
    with pytest.raises(InvalidRequestError) as refused:
        client.export_model("m", path, overwrite=True)
    assert words in str(refused.value)
    assert ".safetensors" in str(refused.value).replace(str(path), "")
    assert service.calls == []
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"precious"] * there_before


@pytest.mark.parametrize("name", ["m.SafeTensors", "v1.2.safetensors"])
def test_the_ending_may_be_in_capitals_and_follow_other_dots(client, exported, tmp_path, name):
    """Only the last ending counts, however it is written."""
    assert client.export_model("m", tmp_path / name).read_bytes() == exported


def test_into_a_folder_a_model_goes_under_its_own_name(client, exported, tmp_path):
    """As other commands that copy do; one that is there is replaced only on request."""
    assert client.export_model("m", tmp_path) == tmp_path / "m.safetensors"
    with pytest.raises(FileExistsError):
        client.export_model("m", tmp_path)


def test_a_folder_that_is_missing_is_named_before_anything_is_asked(client, service, exported, tmp_path):
    """The folder, and not the temporary file that would have been in it."""
    with pytest.raises(FileNotFoundError) as missing:
        client.export_model("m", tmp_path / "nowhere" / "m.safetensors")
    assert missing.value.filename == str(tmp_path / "nowhere")
    assert service.calls == []


def test_a_file_that_is_there_is_replaced_only_on_request(client, exported, tmp_path):
    """An export refuses to destroy what it finds, unless it is told to."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        client.export_model("m", path)
    assert path.read_bytes() == b"precious"
    client.export_model("m", path, overwrite=True)
    assert path.read_bytes() == exported


@pytest.mark.parametrize("there_before", [False, True])
def test_an_export_that_breaks_off_changes_nothing(client, service, exported, tmp_path, there_before):
    """After an error in mid-file the folder is what it was."""
    path = tmp_path / "m.safetensors"
    if there_before:
        path.write_bytes(b"the old one")

    def half(_request, context):
        yield models_pb2.ExportModelResponse(chunk=exported[:1000])
        context.abort(grpc.StatusCode.NOT_FOUND, "the model has been deleted")

    service.handlers["ExportModel"] = half
    with pytest.raises(NotFoundError, match="the model has been deleted"):
        client.export_model("m", path, overwrite=True)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [
        (path.name, b"the old one")
    ] * there_before


def test_a_model_damaged_on_its_way_is_not_kept(client, service, exported, tmp_path):
    """Bytes that do not come to the model's SHA-256 are refused."""
    damaged = bytearray(exported)
    damaged[1234] ^= 1
    service.handlers["ExportModel"] = lambda *_: iter([models_pb2.ExportModelResponse(chunk=bytes(damaged))])
    with pytest.raises(InternalError, match="damaged"):
        client.export_model("m", tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def _predict(requests, _context):
    """Three rows in two messages, and a comparison that counts the bytes that came."""
    header, *chunks = requests
    for first, labels in ((0, [7, 1]), (2, [4])):
        rows = [models_pb2.Prediction(label=label) for label in labels]
        yield models_pb2.PredictResponse(predictions=models_pb2.Predictions(first_row=first, rows=rows))
    if header.header.data_files.classes:
        rows = sum(len(request.chunk) for request in chunks)
        yield models_pb2.PredictResponse(comparison=models_pb2.Comparison(rows=rows))


def test_predictions_come_row_by_row_and_then_the_comparison(client, service, two_files):
    """All rows come in order; the comparison is there when they have."""
    service.handlers["Predict"] = _predict
    run = client.predict("m", two_files, classes=10)
    assert next(run).label == 7
    assert run.comparison is None
    assert [prediction.label for prediction in run] == [1, 4]
    assert run.comparison.rows == sum(file.stat().st_size for file in two_files)


def test_predictions_without_targets_have_no_comparison(client, service, two_files):
    """Where there was nothing to compare with, nothing is made up."""
    service.handlers["Predict"] = _predict
    run = client.predict("m", two_files)
    assert len(list(run)) == 3
    assert run.comparison is None


def test_a_refused_prediction_says_why(client, service, refuse, two_files):
    """The service's sentence reaches whoever asks for the first row."""
    refusal = refuse(grpc.StatusCode.INVALID_ARGUMENT, "63 features came, the model has 64")

    def handler(requests, context):
        refusal(next(requests), context)
        yield  # a stream, but an empty one

    service.handlers["Predict"] = handler
    with client.predict("m", two_files) as run, pytest.raises(InvalidRequestError, match="63 features came"):
        next(run)
