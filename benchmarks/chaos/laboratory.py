"""What trials need: images in a folder or a bucket, and the parts of an undisturbed run."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.chaos.trials import Laboratory, ended, parts
from cifar_ray.storage import open_store
from tests.drawing import draw_folder
from tests.store.servers import REGION, MotoServer, client_of, running

IMAGES = 60
BUCKET = "chaos"


@contextmanager
def bucket(images: Path) -> Iterator[str]:
    """Start an S3 server, put the images there, and let this process and its children find it."""
    with running(MotoServer(), BUCKET) as server:
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{server.port}"
        os.environ["AWS_ACCESS_KEY_ID"] = server.access_key
        os.environ["AWS_SECRET_ACCESS_KEY"] = server.secret_key
        os.environ["AWS_REGION"] = REGION
        client = client_of(server, server.port)
        for path in (path for path in images.rglob("*") if path.is_file()):
            key = f"images/{path.relative_to(images).as_posix()}"
            client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
        yield f"s3://{BUCKET}"


@contextmanager
def laboratory(store: str, engine: str) -> Iterator[Laboratory]:
    """Draw images, and label them undisturbed."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        room = Path(folder)
        images = room / "images"
        draw_folder(images, count=IMAGES)
        (images / "empty.jpg").write_bytes(b"")
        if store == "folder":
            yield undisturbed(Laboratory(str(images), folder, room, engine, {}))
            return
        with bucket(images) as place:
            yield undisturbed(Laboratory(f"{place}/images", place, room, engine, {}))


def undisturbed(laboratory: Laboratory) -> Laboratory:
    """Return the laboratory with the parts that a trial must give."""
    out = f"{laboratory.place}/undisturbed"
    done = laboratory.label(out, None)
    if done.returncode:
        raise SystemExit(f"an undisturbed run {ended(done)}")
    return replace(laboratory, expected=parts(open_store(out)))
