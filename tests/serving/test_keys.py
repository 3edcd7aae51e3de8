"""API keys: accepted when right, refused alike when not, and stored as digests only."""

import json
import stat

import pytest

from companion.serving.keys import (
    ApiKey,
    DuplicateKeyError,
    KeyFileError,
    KeyRing,
    UnknownKeyError,
    generate_key,
)


@pytest.fixture
def made():
    return generate_key("a shop", rate=5.0, burst=10)


def test_the_owner_of_a_key_is_found_the_first_time_and_ever_after(made):
    key, record = made
    ring = KeyRing([record])

    assert [ring.owner(key.encode()) for _ in range(3)] == [record] * 3


def test_no_two_keys_are_alike():
    keys = {generate_key("x")[0] for _ in range(100)}

    assert len(keys) == 100


def test_who_presents_nothing_is_told_that_a_key_is_needed(made):
    with pytest.raises(UnknownKeyError) as caught:
        KeyRing([made[1]]).owner(None)

    assert caught.value.is_missing
    assert "needed" in str(caught.value)


@pytest.mark.parametrize("change", ["secret", "id", "form", "empty", "bytes"])
def test_whatever_is_wrong_with_a_key_the_refusal_is_the_same(made, change):
    key, record = made
    other, _ = generate_key("somebody else")
    wrong = {
        "secret": key[:17] + other[17:],
        "id": other[:17] + key[17:],
        "form": "Bearer " + key,
        "empty": "",
        "bytes": key[:-1] + "é",
    }[change]

    with pytest.raises(UnknownKeyError) as caught:
        KeyRing([record]).owner(wrong.encode())

    assert str(caught.value) == "the API key is not valid"
    assert not caught.value.is_missing


def test_a_refused_key_is_refused_again_after_the_right_one_was_seen(made):
    key, record = made
    ring = KeyRing([record])
    ring.owner(key.encode())

    with pytest.raises(UnknownKeyError):
        ring.owner(key.encode()[:-1])


def test_guesses_fill_no_memory(made):
    ring = KeyRing([made[1]])
    for number in range(100):
        with pytest.raises(UnknownKeyError):
            ring.owner(b"guess %d" % number)

    assert not ring._proven


def test_a_file_of_keys_holds_no_secret_and_comes_back_the_same(made, tmp_path):
    key, record = made
    file = tmp_path / "keys.json"
    KeyRing([record]).save(file)

    assert key.rpartition("_")[2] not in file.read_text()
    assert list(KeyRing.load(file)) == [record]
    assert KeyRing.load(file).owner(key.encode()) == record


def test_a_file_of_keys_is_the_owners_alone(made, tmp_path):
    file = tmp_path / "keys.json"
    KeyRing([made[1]]).save(file)

    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["no JSON", "{}", "7", '[{"id": "x"}]', "[1]", '[{"name": 1}]'])
def test_a_file_of_something_else_is_named(tmp_path, text):
    file = tmp_path / "keys.json"
    file.write_text(text)

    with pytest.raises(KeyFileError) as caught:
        KeyRing.load(file)

    assert caught.value.path == file


def test_two_keys_of_one_id_are_refused(made):
    with pytest.raises(DuplicateKeyError) as caught:
        KeyRing([made[1], made[1]])

    assert caught.value.key_id == made[1].id


@pytest.mark.parametrize(
    "wrong",
    [{"id": "XYZ"}, {"sha256": "short"}, {"rate": 0.0}, {"rate": float("inf")}, {"burst": 0}],
)
def test_a_record_that_makes_no_sense_is_refused(made, wrong):
    with pytest.raises(ValueError):
        ApiKey(**{**json.loads(json.dumps(vars(made[1]))), **wrong})


def test_a_ring_knows_how_many_keys_it_has(made):
    assert len(KeyRing([made[1]])) == 1
