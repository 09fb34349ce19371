import pytest

from cifar_ray.errors import InputError
from cifar_ray.storage import S3Address, open_store


@pytest.mark.parametrize(
    ("uri", "bucket", "prefix", "spelt"),
    [
        ("s3://images", "images", "", "s3://images"),
        ("s3://images/", "images", "", "s3://images"),
        ("s3://images/a/b", "images", "a/b/", "s3://images/a/b"),
        ("s3://images/a/b/", "images", "a/b/", "s3://images/a/b"),
        ("s3://Old_Bucket/ä b", "Old_Bucket", "ä b/", "s3://Old_Bucket/ä b"),
    ],
)
def test_a_place_has_one_spelling(uri: str, bucket: str, prefix: str, spelt: str) -> None:
    address = S3Address.parse(uri)
    assert (address.bucket, address.prefix, address.uri) == (bucket, prefix, spelt)
    assert S3Address.parse(address.uri) == address
    assert open_store(uri).uri == spelt


@pytest.mark.parametrize("uri", ["s3://", "s3:///x", "s3://b", "s3://bad bucket/x", "s3://-a-/x"])
def test_a_place_without_a_bucket_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="names no bucket"):
        open_store(uri)


def test_a_place_contains_itself_and_what_is_below_but_not_names_that_begin_alike() -> None:
    place = S3Address.parse("s3://images/a")
    assert place.contains(place)
    assert place.contains(S3Address.parse("s3://images/a/b"))
    assert S3Address.parse("s3://images").contains(place)
    assert not place.contains(S3Address.parse("s3://images/ab"))
    assert not place.contains(S3Address.parse("s3://others/a"))
