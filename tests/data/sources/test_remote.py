"""Addresses: with the memory, zip, http and local file systems of fsspec 2026.9, and a hub that is made up."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.data.images import load_images
from cvcoteach.data.levels import ORDINARY
from cvcoteach.data.sources import Choices, at_hand, is_address, read_source, read_unlabelled
from cvcoteach.data.sources.patterns import shown_address
from cvcoteach.data.sources.remote import _ODD_PASSWORD

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six images in two class folders, and a table beside them."""
    for i in range(6):
        file = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 6), 10 * i, np.uint8)).save(file)
    return tmp_path / "photos"


@pytest.fixture
def bucket(photos: Path) -> Iterator[Any]:
    """The same in a file system in memory."""
    memory = fsspec.filesystem("memory")
    memory.put(str(photos), "/bucket/photos", recursive=True)
    yield memory
    memory.rm("/bucket", recursive=True)


def gray(source: Any) -> list[int]:
    return sorted(load_images(source, 6, levels=ORDINARY).pixels[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("address", ["memory://bucket/photos", "memory://bucket/photos/"])
def test_a_folder_elsewhere_is_copied_once_and_what_changes_again(bucket: Any, address: str) -> None:
    source = read_source(address)
    assert source.class_names == ("cat", "dog")
    assert source.location.name == "photos"
    assert gray(source) == [0, 10, 20, 30, 40, 50]
    before = os.stat((source.files or ())[0]).st_mtime_ns
    bucket.pipe("/bucket/photos/dog/1.png", bucket.cat("/bucket/photos/dog/5.png"))
    bucket.rm("/bucket/photos/cat/4.png")
    bucket.pipe("/bucket/photos/eel/7.png", bucket.cat("/bucket/photos/cat/0.png"))
    again = read_source(address)
    assert gray(again) == [0, 0, 20, 30, 50, 50]
    assert again.class_names == ("cat", "dog", "eel")
    assert os.stat((again.files or ())[0]).st_mtime_ns == before
    bucket.rm("/bucket/photos/eel", recursive=True)
    assert not (read_source(address).location / "eel").exists()


def test_a_table_elsewhere_brings_its_folder_and_a_file_itself(bucket: Any, photos: Path) -> None:
    rows = [f"{file.relative_to(photos)},{file.parent.name}\n" for file in sorted(photos.glob("*/*.png"))]
    bucket.pipe("/bucket/photos/labels.csv", ("path,label\n" + "".join(rows)).encode())
    source = read_source("memory://bucket/photos/labels.csv")
    assert source.location.name == "labels.csv"
    assert len(source) == 6
    assert gray(source) == [0, 10, 20, 30, 40, 50]
    one = read_unlabelled("memory://bucket/photos/cat/2.png")
    assert gray(one) == [20]
    assert len(list(one.root.iterdir())) == 1


def test_an_archive_is_read_without_being_unpacked_by_hand(photos: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all of it.zip", "w") as archive:
        for file in photos.glob("*/*.png"):
            archive.write(file, str(Path("in") / file.relative_to(photos)))
    inside = read_source(f"zip://in::{tmp_path}/all of it.zip")
    assert inside.location.name == "in"
    assert gray(inside) == [0, 10, 20, 30, 40, 50]
    assert at_hand(f"zip://::{tmp_path}/all of it.zip").name == "all_of_it"
    with pytest.raises(InputError, match=r"Unpack it, and name the folder, or name zip://in::.*all of it\.zip"):
        read_source(tmp_path / "all of it.zip")
    with pytest.raises(InputError, match=r"one class only \(in\).*are the classes, name zip://in::.*all of it\.zip\)"):
        read_source(f"zip://::{tmp_path}/all of it.zip")
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"or name zip://::.*broken\.zip"):
        read_source(tmp_path / "broken.zip")


def test_a_name_that_leads_out_of_an_archive_is_refused(cache: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("cat/1.png", b"1")
        archive.writestr("cat/../../../evil.png", b"1")
    with pytest.raises(InputError, match=r"holds the file 'cat/\.\./\.\./\.\./evil\.png', whose name leads out of it"):
        read_source(f"zip://::{tmp_path}/evil.zip")
    assert not list(tmp_path.rglob("evil.png"))


def test_a_file_on_the_web_is_copied_and_a_folder_there_is_not(photos: Path) -> None:
    pytest.importorskip("aiohttp")
    handler = partial(_Quiet, directory=str(photos))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://user:secret@127.0.0.1:{server.server_port}"
        try:
            source = read_unlabelled(f"{address}/cat/2.png?token=secret")
            assert source.paths == ("2.png",)
            assert gray(source) == [20]
            for place in ("nowhere.csv", "cat/3.png"):
                with pytest.raises(InputError, match=r"http://…@127\.0\.0\.1:\d+/.* does not exist") as refused:
                    read_source(f"{address}/{place}")
                assert "secret" not in str(refused.value)
            (photos / "root.png").write_bytes((photos / "cat" / "2.png").read_bytes())
            source = read_unlabelled(f"{address}/root.png?token=secret")
            assert "secret" not in str(source.location)  # which stands in run folders and pages
            for place in ("cat/{0,2}.png?token=secret", "{0..999999}.tar?token=secret", "?token=secret"):
                with pytest.raises(InputError, match=r"names 2 files|stands for|leads out") as refused:
                    read_source(f"{address}/{place}")
                assert "secret" not in str(refused.value)
        finally:
            server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_what_is_local_stays_where_it_is(photos: Path) -> None:
    assert at_hand(f"file://{photos}") == photos
    assert at_hand(photos) == photos
    assert at_hand(str(photos)) == photos
    assert not is_address("C:\\photos")
    assert not is_address("photos/a:b")


def test_what_cannot_be_reached_gets_a_sentence(bucket: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="memory://bucket/nowhere does not exist"):
        read_source("memory://bucket/nowhere")
    with pytest.raises(InputError, match=r"foo://bucket cannot be reached .*; look at the address, the network"):
        read_source("foo://bucket")
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(InputError, match=r"s3://…@bucket takes a package that is not there .*cvcoteach\[remote\]"):
        read_source("s3://key:secret@bucket")

    def breaks(self: Any, *_: Any, **__: Any) -> None:
        raise TimeoutError("no answer from https://user:secret@host/x?sig=secret")

    with monkeypatch.context() as patched:
        patched.setattr(type(bucket), "get_file", breaks)
        with pytest.raises(InputError, match=r"cannot be reached .no answer from https://…@host/x") as refused:
            read_source("memory://bucket/photos")
    assert "secret" not in str(refused.value)
    assert len(read_source("memory://bucket/photos")) == 6
    assert shown_address("https://a/b?x=1") == "https://a/b?…"
    assert shown_address("zip://a::https://b?end=12:30&sig=secret::c") == "zip://a::https://b?…::c"
    assert shown_address("https://user:sec@ret@host/a@b") == "https://…@host/a@b"


@pytest.mark.parametrize("name", ["own/name", "pandas"])
def test_the_hub_is_not_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """datasets 5.2.0 reads a folder `own/name` there; before 5.2 it unpickled files there for the name `pandas`."""
    pytest.importorskip("datasets")
    (tmp_path / "own" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"hf://{name} would be read from the working folder, not from the hub"):
        read_source(f"hf://{name}")


@pytest.mark.parametrize(("address", "elsewhere"), [("hdfs://node:8020/photos", True), ("ftp://node/photos", False)])
def test_a_library_of_hadoop_is_not_looked_for_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, elsewhere: bool
) -> None:
    asked = []

    def url_to_fs(address: str) -> Any:
        asked.append(Path.cwd())
        raise ConnectionRefusedError

    monkeypatch.setattr("fsspec.core.url_to_fs", url_to_fs)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="cannot be reached"):
        at_hand(address, tmp_path / "cache")
    assert asked == [Path("/") if elsewhere else tmp_path]
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize(
    "address",
    [
        "reference://::{}",
        "reference://::file://{}",
        "simplecache::reference://::{}",
        "simplecache::refer{{e,e}}nce://::file://{}",
    ],
)
def test_a_file_of_references_to_other_addresses_is_not_followed(tmp_path: Path, photos: Path, address: str) -> None:
    file = tmp_path / "references.json"
    file.write_text(json.dumps({"cat/0.png": [str(photos / "cat" / "0.png")]}))
    with pytest.raises(InputError, match="is a file of references to other addresses, which are not followed"):
        read_source(address.format(file))


@pytest.mark.parametrize("status", [None, 403, 404])
def test_a_server_that_does_not_answer_is_not_a_file_that_is_not_there(status: int | None) -> None:
    class Refusing(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status or 404)

        do_HEAD = do_GET  # noqa: N815 - as http.server calls it

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/x.npz"
        if status is None:
            server.server_close()  # nobody listens
        else:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        said = "does not exist" if status == 404 else "cannot be reached .*; look at the address, the network"
        with pytest.raises(InputError, match=said):
            read_source(address)
        if status is not None:
            server.shutdown()


def test_there_has_to_be_room(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"name": "/bucket/photos/cat/0.png", "size": 10**18, "type": "file"}
    with monkeypatch.context() as patched:
        patched.setattr(type(bucket), "find", lambda *_, **__: {"/bucket/photos/cat/0.png": sizes})
        with pytest.raises(InputError, match=r"memory://bucket/photos takes 1000000000\.00 GB, but .* free"):
            read_source("memory://bucket/photos")


def test_a_dataset_of_the_hub_is_saved_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    asked: list[tuple[str, ...]] = []

    def made(shift: int) -> Any:
        pictures = [Image.fromarray(np.full((6, 6), shift + i, np.uint8)) for i in range(6)]
        return datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 0, 1, 0, 1]}, features=features)

    content = datasets.DatasetDict({"train": made(0), "test": made(100)})

    def load_dataset(*name: str) -> Any:
        asked.append(name)
        return content

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = read_source("hf://owner/pets")
    assert source.location.name == "pets"
    assert source.class_names == ("cat", "dog")
    assert gray(source) == [0, 1, 2, 3, 4, 5, 100, 101, 102, 103, 104, 105]
    assert source.splits is not None
    assert source.splits.tolist() == ["train"] * 6 + ["test"] * 6
    before = (source.location / "dataset_dict.json").stat().st_mtime_ns
    test = read_source("hf://owner/pets", split="test")
    assert gray(test) == [100, 101, 102, 103, 104, 105]
    assert (source.location / "dataset_dict.json").stat().st_mtime_ns == before
    content = datasets.DatasetDict({"train": made(50)})
    assert gray(read_source("hf://owner/pets")) == [50, 51, 52, 53, 54, 55]
    assert read_source("hf://owner/pets/small").location.name == "pets-small"
    assert asked[-2:] == [("owner/pets",), ("owner/pets", "small")]
    assert len(read_unlabelled("hf://pets", Choices(cache_dir=tmp_path / "other"))) == 6
    assert (tmp_path / "other" / "remote").is_dir()

    with monkeypatch.context() as patched:
        patched.setattr(datasets, "__version__", "3.6.0")
        with pytest.raises(InputError, match="earlier ones may run code of the dataset"):
            read_source("hf://owner/pets")

    def offline(*name: str) -> Any:
        raise ConnectionError("the hub is not there")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(InputError, match=r"hf://owner/pets cannot be reached \(the hub is not there\)"):
        read_source("hf://owner/pets")


def test_a_hub_that_cannot_be_reached_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    datasets = pytest.importorskip("datasets")
    of_hub = logging.getLogger("huggingface_hub.utils._http")
    before = of_hub.getEffectiveLevel()

    def load_dataset(*_: str) -> Any:
        """Warn of each try, as huggingface_hub 2.4 does without a network."""
        for wait in (1, 2, 4):
            of_hub.warning("Retrying in %ds.", wait)
        raise ConnectionError("Couldn't reach 'nobody/nothing' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert of_hub.isEnabledFor(logging.WARNING)
    with pytest.raises(InputError, match=r"hf://nobody/nothing cannot be reached \(Couldn't reach 'nobody/nothing'"):
        read_source("hf://nobody/nothing")
    assert capfd.readouterr() == ("", "")
    assert of_hub.getEffectiveLevel() == before


def archived(photos: Path) -> str:
    file = photos.with_suffix(".zip")
    shutil.make_archive(str(photos), "zip", photos.parent, photos.name)
    return f"zip://photos::{file}"


def copy_of(cache: Path) -> Path:
    return next((cache / "remote").glob("*/files.json")).parent


def test_a_record_in_the_cache_that_names_files_elsewhere_removes_none(
    cache: Path, photos: Path, tmp_path: Path
) -> None:
    address, kept = archived(photos), tmp_path / "kept.txt"
    read_source(address)
    kept.write_text("mine")
    record = copy_of(cache) / "files.json"
    known = json.loads(record.read_text())
    known["files"] |= {str(kept): "x", "../../../../kept.txt": "x", "cat/../../../../../kept.txt": "x"}
    record.write_text(json.dumps(known))
    assert len(read_source(address)) == 6
    assert kept.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links take a right there")
@pytest.mark.parametrize("place", ["photos", "photos/cat"])
def test_a_link_in_the_copy_in_the_cache_is_not_written_through(
    cache: Path, photos: Path, tmp_path: Path, place: str
) -> None:
    address = archived(photos)
    read_source(address)
    copy, elsewhere = copy_of(cache), tmp_path / "elsewhere"
    shutil.rmtree(copy / place)
    elsewhere.mkdir()
    (copy / place).symlink_to(elsewhere)
    with pytest.raises(InputError, match="is a link, which no copy of ours holds"):
        read_source(address)
    assert not any(elsewhere.iterdir())


@pytest.mark.parametrize("address", ["sftp://user:se:c/ret@host/x.csv", "zip://::ftp://user:sec/ret@host/x.zip"])
def test_a_password_that_would_be_taken_for_a_port_is_not_shown(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="%2F") as refused:
        read_source(address, cache_dir=tmp_path)
    assert "ret" not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://host:8080/a@b",
        "http://user@host:8080/a@b",
        "http://[::1]:8080/a@b",
        "s3://arn:aws:s3:eu:1:accesspoint/a@b",
        "zip://::http://user:p@host/a@b",
        "zip://a:b/big/img@2x.png::http://host/x.zip",
        "file://C:/photos/big@2x/x.csv",
    ],
)
def test_no_password_is_seen_where_there_is_none_or_a_plain_one(address: str) -> None:
    assert not any(map(_ODD_PASSWORD.search, address.split("::")))
