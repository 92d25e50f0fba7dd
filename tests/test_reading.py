from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path

import openpyxl
import pptx
import pytest

from mlr_rag import Document, InvalidInputError, MLRModel, Retriever
from mlr_rag.errors import InvalidDocumentError, MissingExtraError
from mlr_rag.reading import Notes, read, root_of
from mlr_rag.reading.splitting import Splitter


def texts(path: Path, model: MLRModel, **options: object) -> list[str]:
    return [document.text for document in read(path, model, **options)]


def test_a_folder_is_read_in_order_without_hidden_and_unknown_files(tmp_path: Path, tiny_model: MLRModel) -> None:
    for name in ("b.txt", "a/z.md", ".git/config.txt", "a/.hidden.md", "kb/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"words of {name}")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0")
    (tmp_path / "blank.txt").write_text(" \n")
    notes = Notes()
    found = list(read(tmp_path, tiny_model, exclude=tmp_path / "kb", notes=notes))
    assert [document.text for document in found] == ["words of b.txt", "words of a/z.md"]
    root = root_of(tmp_path)
    assert found[1].metadata == {"root": root, "path": "a/z.md", "chunk": 0}
    assert found[1].id == f"{root}/a/z.md#0"
    assert notes.files == 2
    assert notes.skipped == {"unknown type .png": ["picture.png"], "without text": ["blank.txt"]}


def test_no_chunk_is_longer_than_the_model_reads_and_nothing_is_lost(tmp_path: Path, tiny_model: MLRModel) -> None:
    tiny_model.prompts["document"] = "read the page:"
    words = [f"part {number} of the road." for number in range(200)]
    (tmp_path / "long.txt").write_text("\n\n".join(words))
    found = list(read(tmp_path, tiny_model))
    assert len(found) > 10
    assert " ".join(document.text for document in found).split() == " ".join(words).split()
    lengths = [
        len(tiny_model.tokenizer(f"read the page:{document.text}", truncation=False)["input_ids"]) for document in found
    ]
    assert max(lengths) <= 64
    assert sorted(lengths)[1] > 40  # filled, not crumbled; the last chunk may be short
    assert len({document.id for document in found}) == len(found)
    assert [document.metadata["chunk"] for document in found] == list(range(len(found)))


def test_splitting_leaves_the_tokenizer_as_it_was(tiny_model: MLRModel) -> None:
    tiny_model.tokenizer.backend_tokenizer.enable_truncation(16)  # some are saved with less than the model's length
    before = tiny_model.tokenizer.backend_tokenizer.to_str()
    chunks = Splitter(tiny_model).split("the water boils " * 60)
    assert tiny_model.tokenizer.backend_tokenizer.to_str() == before
    assert len(chunks) == 3


def test_a_prompt_that_leaves_no_room_is_refused(tiny_model: MLRModel) -> None:
    tiny_model.prompts["document"] = "the " * 70
    with pytest.raises(InvalidInputError, match="no room for a text"):
        Splitter(tiny_model)
    with pytest.raises(InvalidInputError, match="without a tokenizer"):
        Splitter(object())


def test_markdown_is_cut_at_its_sections_and_knows_its_title(tmp_path: Path, tiny_model: MLRModel) -> None:
    sections = [f"## Part {name}\n\n{'the old road is stone. ' * 5}" for name in ("one", "two", "three")]
    (tmp_path / "roads.md").write_text("# Old roads #\n\n" + "\n\n".join(sections))
    found = list(read(tmp_path, tiny_model))
    starts = [document.text.split("\n")[0] for document in found]
    assert "## Part two" in starts
    assert "## Part three" in starts
    assert {document.metadata["title"] for document in found} == {"Old roads"}


def test_bytes_that_are_no_text_are_replaced_and_reported(tmp_path: Path, tiny_model: MLRModel) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 bar")
    (tmp_path / "nul.txt").write_bytes(b"the\0 road")
    (tmp_path / "wide.txt").write_bytes("the stone – bridge".encode("utf-16"))
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbfthe water")
    notes = Notes()
    assert texts(tmp_path, tiny_model, notes=notes) == ["caf\ufffd bar", "the water", "the road", "the stone – bridge"]
    assert notes.repaired == ["latin.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
def test_a_file_name_that_is_no_text_is_escaped(tmp_path: Path, tiny_model: MLRModel) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("the road")
    (document,) = read(tmp_path, tiny_model)
    assert document.metadata["path"] == "caf\\xe9.txt"


def test_json_lines_keep_ids_titles_and_metadata(tmp_path: Path, tiny_model: MLRModel) -> None:
    lines = [
        {"_id": 7, "text": "the bridge", "title": "Bridges", "metadata": {"year": 2020}},
        {"text": "the road", "lang": "en"},
        {"id": "long", "text": "the water boils. " * 30},
    ]
    path = tmp_path / "facts.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)) + '\n{"text": " "}\n')
    bridge, road, *long = read(tmp_path, tiny_model)
    place = {"root": root_of(tmp_path), "path": "facts.jsonl", "chunk": 0}
    assert bridge == Document("the bridge", "7", {"year": 2020, "title": "Bridges"} | place)
    assert (road.text, road.metadata) == ("the road", {"lang": "en"} | place)
    assert [document.id for document in long[:2]] == ["long", "long#1"]
    path.write_text("\n".join(map(json.dumps, reversed(lines))))
    assert road in list(read(tmp_path, tiny_model))  # wherever the line stands, its id is the same


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": "cut', "is not JSON"),
        ('{"title": "no text"}', "has no text"),
        ('["text"]', "has no text"),
        ('{"text": "x", "id": 1.5}', "not an id"),
        ('{"text": "x", "metadata": [1]}', "of another type"),
        ('{"text": "x", "root": "/"}', "the reader uses itself"),
        ('{"text": "x", "size": 99999999999999999999}', "too large"),
        ('{"text": "half \\ud800"}', "lone surrogate"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, tiny_model: MLRModel, line: str, problem: str) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text('{"text": "fine"}\n' + line)
    with pytest.raises(InvalidDocumentError, match=problem) as error:
        list(read(path, tiny_model))
    assert f"{path} line 2" in str(error.value)


def test_each_csv_row_says_what_its_cells_are(tmp_path: Path, tiny_model: MLRModel) -> None:
    (tmp_path / "people.csv").write_text('name;born;\nAda;"1815\nLondon";\n;;\nGauss;1777;x;y\n')
    (tmp_path / "short.tsv").write_text("a\tb\n1\t2,3\n")
    ada, gauss, short = read(tmp_path, tiny_model)
    assert ada.text == "name: Ada\nborn: 1815\nLondon"
    assert gauss.text == "name: Gauss\nborn: 1777\ncolumn 3: x\ncolumn 4: y"
    assert short.text == "a: 1\nb: 2,3"
    assert len({ada.id, gauss.id, short.id}) == 3


def test_office_pdf_and_html_are_converted(tmp_path: Path, tiny_model: MLRModel) -> None:
    (tmp_path / "page.html").write_text(
        "<html><head><title>Water</title><style>p {}</style></head><body><h1>Boiling</h1><p>It boils.</p></body></html>"
    )
    _docx(tmp_path / "letter.docx", "the kettle on the stove")
    _pdf(tmp_path / "paper.pdf", "the old stone bridge")
    deck = pptx.Presentation()
    deck.slides.add_slide(deck.slide_layouts[0]).shapes.title.text = "two old roads"
    deck.save(str(tmp_path / "talk.pptx"))
    book = openpyxl.Workbook()
    book.active.append(["river", "length"])
    book.active.append(["rhine", 1233])
    book.save(tmp_path / "table.xlsx")
    notes = Notes()
    found: dict[str, str] = {}
    for document in read(tmp_path, tiny_model, notes=notes):
        found[document.metadata["path"]] = found.get(document.metadata["path"], "") + document.text
    assert found["page.html"].split() == ["#", "Boiling", "It", "boils."]
    assert "the kettle on the stove" in found["letter.docx"]
    assert "the old stone bridge" in found["paper.pdf"]
    assert "two old roads" in found["talk.pptx"]
    assert "rhine" in found["table.xlsx"]
    assert "1233" in found["table.xlsx"]
    assert (notes.files, notes.skipped) == (5, {})
    assert next(read(tmp_path / "page.html", tiny_model)).metadata["title"] == "Water"


def test_a_damaged_file_is_left_out_and_reported(tmp_path: Path, tiny_model: MLRModel) -> None:
    for name in ("a.pdf", "b.docx", "c.xlsx", "d.pptx"):
        (tmp_path / name).write_text("this is no such file")
    (tmp_path / "e.txt").write_text("the road")
    notes = Notes()
    assert texts(tmp_path, tiny_model, notes=notes) == ["the road"]
    assert notes.skipped == {"damaged or encrypted": ["a.pdf", "b.docx", "c.xlsx", "d.pptx"]}


def test_a_missing_extra_is_named_before_anything_is_read(
    tmp_path: Path, tiny_model: MLRModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "markitdown", None)
    (tmp_path / "a.txt").write_text("the road")
    assert texts(tmp_path, tiny_model) == ["the road"]
    (tmp_path / "b.pdf").write_text("")
    with pytest.raises(MissingExtraError, match=r'pip install "mlr-rag\[ingest\]"'):
        read(tmp_path, tiny_model)


def test_a_named_file_of_unknown_type_is_plain_text_unless_it_is_binary(tmp_path: Path, tiny_model: MLRModel) -> None:
    script, picture = tmp_path / "tool.py", tmp_path / "x.png"
    script.write_text("read = 1")
    picture.write_bytes(b"\x89PNG\0")
    (document,) = read(script, tiny_model)
    assert (document.text, document.metadata["path"], document.id) == ("read = 1", "tool.py", f"{root_of(script)}#0")
    with pytest.raises(InvalidInputError, match="binary data"):
        read(picture, tiny_model)
    with pytest.raises(InvalidInputError, match="nothing to read at"):
        read(tmp_path / "nowhere", tiny_model)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.html"])
def test_an_unreadable_file_stops_the_reading(
    tmp_path: Path, tiny_model: MLRModel, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Were it left out, sync would delete what it held."""
    (tmp_path / name).write_text("the road")
    opened = Path.open

    def refuse(path: Path, *args: object, **kwargs: object) -> object:
        if path.name == name:
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_bytes", lambda path: refuse(path, "rb").read())
    with pytest.raises(InvalidInputError, match=rf"{name} cannot be read: found Permission denied"):
        list(read(tmp_path, tiny_model))


def test_sync_keeps_a_folder_in_step_and_leaves_others_alone(tmp_path: Path, tiny_model: MLRModel) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "a.txt").write_text("the road")
        (folder / "b.txt").write_text("the bridge")

    def sync(folder: Path) -> tuple[int, int, int, int]:
        report = kb.sync(read(folder, tiny_model), within={"root": root_of(folder)})
        return report.added, report.updated, report.skipped, report.deleted

    with Retriever.open("memory:", tiny_model) as kb:
        assert sync(here) == (2, 0, 0, 0)
        assert sync(there) == (2, 0, 0, 0)
        (here / "a.txt").write_text("the water")
        (here / "b.txt").unlink()
        assert sync(here) == (0, 1, 0, 1)
        assert sync(there) == (0, 0, 2, 0)
        assert kb.count({"root": root_of(there)}) == 2


def _docx(path: Path, text: str) -> None:
    office = "http://schemas.openxmlformats.org"
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{office}/package/2006/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{main}"/></Types>',
        )
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{office}/package/2006/relationships"><Relationship Id="r1" '
            f'Type="{office}/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>'
            "</Relationships>",
        )
        archive.writestr(
            "word/document.xml",
            f'<w:document xmlns:w="{office}/wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p>'
            "</w:body></w:document>",
        )


def _pdf(path: Path, text: str) -> None:
    stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        "/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
    ]
    content, places = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(content))
        content += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    content += (
        f"xref\n0 5\n0000000000 65535 f \n{table}trailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n{len(content)}\n%%EOF\n"
    )
    path.write_text(content)
