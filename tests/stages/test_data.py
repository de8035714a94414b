"""Every bad row is named by its number; leakage is found; none of it needs a heavy library."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.errors import InputError
from orchestrator.stages import data, prepare

GOOD = {"messages": [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "MIT"}]}


def chat(question: str, answer: str = "MIT") -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


BAD_ROWS = [
    ("{nope", "not JSON"),
    ("", "the line is empty"),
    ([1], "a JSON object is needed, found list"),
    ({"text": "x"}, "no \"messages\"; found the keys ['text']"),
    ({"messages": []}, "at least one turn"),
    ({"messages": ["hello"]}, "message 1: an object with role and content is needed, found str"),
    ({"messages": [{"role": "bot", "content": "x"}]}, "message 1: role 'bot' is not one of system, user"),
    ({"messages": [{"role": "user", "content": " "}]}, 'message 1: "content" is empty'),
    ({"messages": [{"role": "user", "content": None}]}, 'message 1: "content" must be text, found NoneType'),
    ({"messages": [{"role": "user", "content": "x"}]}, "the last turn must be the assistant's, found 'user'"),
    ({"messages": [GOOD["messages"][0], {"role": "system", "content": "x"}]}, "a system turn can only be the first"),
    ({**GOOD, "source": 3}, '"source" must be text'),
]


@pytest.mark.parametrize(("row", "problem"), BAD_ROWS)
def test_a_bad_row_is_named_with_its_number(tmp_path, row, problem):
    file = written(tmp_path / "rows.jsonl", GOOD, row, GOOD)
    with pytest.raises(InputError) as caught:
        data.check_rows(file)
    assert f"{file}: row 2: " in str(caught.value)
    assert problem in str(caught.value)


def test_good_rows_come_back_whole_and_blank_lines_at_the_end_are_nothing(tmp_path):
    rows = [{**GOOD, "source": "the MIT licence", "id": 7}, GOOD]
    assert data.check_rows(written(tmp_path / "rows.jsonl", *rows, "", "")) == rows


def test_parquet_rows_are_read_like_json_lines(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([chat("a"), chat("b")]), tmp_path / "rows.parquet")
    assert data.check_rows(tmp_path / "rows.parquet") == [chat("a"), chat("b")]
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(InputError, match="not a parquet file"):
        data.check_rows(tmp_path / "bad.parquet")


@pytest.mark.slow
def test_a_folder_is_read_split_by_split(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "repository").mkdir()
    written(tmp_path / "repository" / "train.jsonl", chat("a"), chat("b"))
    written(tmp_path / "repository" / "test.jsonl", chat("c"))
    assert data.load_rows(str(tmp_path / "repository"), "train", tmp_path / "cache") == [chat("a"), chat("b")]
    assert data.load_rows(str(tmp_path / "repository"), "test", tmp_path / "cache") == [chat("c")]
    with pytest.raises(InputError, match="'validation' split"):
        data.load_rows(str(tmp_path / "repository"), "validation", tmp_path / "cache")


def test_an_empty_or_missing_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match="the data set is empty"):
        data.check_rows(written(tmp_path / "rows.jsonl"))
    with pytest.raises(InputError, match="no data set file"):
        data.check_rows(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"\.jsonl or \.parquet"):
        data.check_rows(written(tmp_path / "rows.csv", GOOD))


def test_leakage_lists_both_row_numbers(tmp_path):
    train = written(tmp_path / "train.jsonl", chat("a"), chat("b"), chat("c"))
    test = written(tmp_path / "test.jsonl", chat("x"), chat("c"), chat("a", "BSD"), chat("a"))
    with pytest.raises(InputError) as caught:
        data.check_files(train, test)
    message = "2 of 4 test rows are also in the training data: test row 2 = train row 3, test row 4 = train row 1"
    assert message in str(caught.value)
    data.check_files(train, test, allow_leakage=True)


def test_a_long_list_of_leaks_is_cut(tmp_path):
    rows = [chat(str(number)) for number in range(9)]
    with pytest.raises(InputError, match=r"9 of 9 test rows .* and 4 more"):
        data.check_leakage(rows, rows, allow=False)


@pytest.mark.parametrize("kind", ["instruction", "completion", "preference"])
def test_other_types_are_refused_by_name(kind):
    with pytest.raises(ValidationError, match=f"type '{kind}' is not available yet"):
        prepare.Dataset(path="a.jsonl", type=kind)


def test_the_early_checks_import_no_heavy_library():
    heavy = "{'torch', 'transformers', 'datasets', 'pyarrow', 'peft'}"
    code = f"import sys, orchestrator.stages.data, orchestrator.stages.train; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
