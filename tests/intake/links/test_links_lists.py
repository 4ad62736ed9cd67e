"""Lists of links as people have them: whatever is wrong with a row, the others are read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ego_assets.intake.links.lists import ListError, make_link, read_links, shown_url

HASH = "ab" * 32


def read(path: Path, text: str) -> tuple[dict[str, object], list[str]]:
    path.write_text(text, encoding="utf-8")
    found = read_links([str(path)])
    return {link.url: link for link in found.links.values()}, found.faults


def test_text_has_a_link_a_line(tmp_path: Path) -> None:
    text = "\ufeffhttp://a.org/1.mp4\r\n\n# not this\n  http://a.org/2.mp4  \nhttp://a.org/1.mp4\n"
    found, faults = read(tmp_path / "list.txt", text)
    assert list(found) == ["http://a.org/1.mp4", "http://a.org/2.mp4"]
    assert faults == []
    assert read_links([str(tmp_path / "list.txt")]).notes == []


def test_rows_of_one_link_that_differ_are_a_fault(tmp_path: Path) -> None:
    url = "http://a.org/x.mp4"
    for rows in (f"{url},\n{url},withdrawn\n", f"{url},granted\n{url},\n{url},granted\n"):
        (link,) = read(tmp_path / "a.csv", f"url,consent\n{rows}")[0].values()
        assert "say different things" in link.fault  # type: ignore[attr-defined]
    (link,) = read(tmp_path / "a.csv", f"url,consent\n{url},\n{url},sure\n")[0].values()
    assert link.fault  # type: ignore[attr-defined]
    same = f"url,consent\n{url},granted\n{url},granted\n"
    (link,) = read(tmp_path / "a.csv", same)[0].values()
    assert not link.fault  # type: ignore[attr-defined]


def test_links_whose_names_differ_in_the_suffix_alone_are_refused(tmp_path: Path) -> None:
    names = ("k/P1.mp4", "k/P1.MOV", "P1.mp4", "k/P1.a", "")
    text = "\n".join(f"http://a.org/{n},{name}" for n, name in enumerate(names))
    links = read(tmp_path / "a.csv", f"url,name\n{text}\nhttp://a.org/9,\n")[0].values()
    faults = [bool(link.fault) for link in links]  # type: ignore[attr-defined]
    assert faults == [True, True, False, False, False, False]


def test_csv_jsonl_and_parquet_say_the_same(tmp_path: Path) -> None:
    url, said = "http://a.org/x.mp4", ("cc0-1.0", "p1", "granted")
    lists = {
        "a.csv": f"URL,sha256,Licence,person,consent\n{url},{HASH},{','.join(said)}\n",
        "a.jsonl": f'{{"url": "{url}", "sha256": "{HASH}", "license": "cc0-1.0", "person": "p1", '
        '"consent": "granted", "site": null}\n',
    }
    links = [read(tmp_path / name, text)[0][url] for name, text in lists.items()]
    columns = {"url": [url], "sha256": [HASH], "license": [said[0]], "person": ["p1"]}
    pq.write_table(pa.table(columns | {"consent": ["granted"]}), tmp_path / "a.parquet")
    links += read_links([str(tmp_path / "a.parquet")]).links.values()
    assert links[0] == links[1] == links[2]
    assert links[0].fault == ""  # type: ignore[attr-defined]
    beside = {"license": "cc0-1.0", "person": "p1", "consent": "granted"}
    assert dict(links[0].beside) == beside  # type: ignore[attr-defined]


def test_what_is_wrong_with_a_row_keeps_no_other(tmp_path: Path) -> None:
    text = '{"url": "http://a.org/1"}\nnonsense\n[1]\n{"other": 1}\n{"url": 7}\n{"url": "x"}\n'
    found, faults = read(tmp_path / "a.jsonl", text)
    assert list(found) == ["http://a.org/1", "x"]
    assert [f.partition(": ")[0] for f in faults] == [f"a.jsonl, row {n}" for n in (2, 3, 4, 5)]
    (note,) = read_links([str(tmp_path / "a.jsonl")]).notes
    assert "column other is not known" in note


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"sha256": "abc"}, "64 hex digits"),
        ({"name": "../a.mp4"}, "plain name"),
        ({"name": "/etc/a.mp4"}, "plain name"),
        ({"name": ".hidden"}, "plain name"),
        ({"name": "a/.b/c"}, "plain name"),
        ({"license": "x" * 201}, "longer than"),
        ({"person": "a\x1b[2J"}, "not printable"),
        ({"consent": "sure"}, "none of granted"),
    ],
)
def test_a_row_that_says_what_cannot_be_is_a_link_with_a_fault(
    row: dict[str, str], why: str
) -> None:
    assert why in make_link("http://a.org/x", row).fault


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv", b"link_of_it,sha256\nx,y\n", "no column url"),
        ("a.csv", b"\xff\xfe\x00", "cannot be read"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read"),
        ("a.parquet", b"PAR1 not", "cannot be read"),
    ],
)
def test_a_file_that_is_no_list_is_told(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ListError, match=why):
        read_links([str(tmp_path / name)])
    with pytest.raises(ListError, match="neither a link nor a file"):
        read_links([str(tmp_path / "none.txt")])


def test_secrets_and_signatures_are_not_kept_and_do_not_make_another_link() -> None:
    url = "https://b.s3.amazonaws.com/k.mp4?versionId=3&X-Amz-Date={0}&X-Amz-Signature={0}#t=3"
    first, second = (make_link(url.format(n), {}) for n in "12")
    assert first.shown == "https://b.s3.amazonaws.com/k.mp4?versionId=3"
    assert first.id == second.id
    assert second.url == url.format("2")
    azure = "https://a.blob.core.windows.net/c/k.mp4?sv=1&st=2&se=3&sr=b&sp=r&sig=abc"
    assert shown_url(azure) == "https://a.blob.core.windows.net/c/k.mp4"
    assert shown_url("http://me:word@a.org/x") == "http://a.org/x"  # pragma: allowlist secret
    assert shown_url("http://a.org/x?se=3&id=4") == "http://a.org/x?se=3&id=4"


def test_what_only_looks_as_if_it_were_signed_makes_another_link(tmp_path: Path) -> None:
    for query in ("sku={0}", "se={0}", "expires={0}", "skin={0}&sv=1", "policy={0}&key-pair-id=1"):
        links = {make_link(f"http://a.org/v?{query.format(n)}&sig=x", {}).id for n in "12"}
        assert len(links) == 2, query
    assert shown_url("http://a.org/v?sku=1&Signature=secret") == "http://a.org/v?sku=1"
    for query in (
        "Signature={0}&Expires={0}&AWSAccessKeyId=a&versionId=3",
        "versionId=3&Signature={0}&Expires={0}&Key-Pair-Id=a",
        "X-Goog-Signature={0}&X-Goog-Date={0}&versionId=3",
    ):
        assert shown_url(f"https://a.org/k?{query.format(7)}") == "https://a.org/k?versionId=3"
    (tmp_path / "a.txt").write_text("http://a.org/v?sig=1\nhttp://a.org/v?sig=2\n")
    (note,) = read_links([str(tmp_path / "a.txt")]).notes
    assert note.startswith("1 rows have a link that differs")


def test_each_link_has_an_id_of_its_own() -> None:
    ids = {make_link(f"http://a.org/{n}", {}).id for n in range(1000)}
    assert len(ids) == 1000
