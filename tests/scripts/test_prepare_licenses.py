"""The script runs as people run it, on distributions that the tests lay down, and once on the real ones."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_licenses.py"


def words(licence: str, package: str, count: int = 120) -> str:
    return f"Copyright {package}. " + " ".join(f"{licence.lower()}-word-{number}" for number in range(count))


def install(site: Path, package: str, metadata: str, files: dict[str, str]) -> None:
    """A distribution as an installer leaves it."""
    folder = site / f"{package}-1.0.dist-info"
    (folder / "licenses").mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {package}\nVersion: 1.0\n{metadata}\n")
    for name, text in files.items():
        (folder / "licenses" / name).write_text(text)
    names = ["METADATA", *(f"licenses/{name}" for name in files)]
    (folder / "RECORD").write_text("".join(f"{folder.name}/{name},,\n" for name in names))


def site_with(tmp_path: Path, count: int = 8) -> Path:
    site = tmp_path / "site"
    for number in range(count):
        install(site, f"m{number}", "License-Expression: MIT", {"LICENSE": words("mit", f"m{number}")})
        expression = "Classifier: License :: OSI Approved :: Apache Software License"
        install(site, f"a{number}", expression, {"LICENSE.txt": words("apache", f"a{number}", 300)})
    return site


def prepare(site: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(SCRIPT),
        "--out",
        str(out),
        "--path",
        str(site),
        "--common",
        str(site / "none"),
        *more,
    ]
    return subprocess.run(command, capture_output=True, text=True)


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_row_asks_for_a_passages_licence_and_its_source_holds_the_answer(tmp_path):
    assert prepare(site_with(tmp_path), tmp_path / "out", "--fewest", "4").returncode == 0
    for row in rows(tmp_path / "out" / "train.jsonl"):
        question, answer = (turn["content"] for turn in row["messages"])
        assert answer.splitlines()[0] in ("Licence: MIT", "Licence: Apache-2.0")
        assert answer in row["source"]
        assert question.partition("\n\n")[2] in row["source"]


def test_the_same_distributions_give_the_same_bytes(tmp_path):
    site = site_with(tmp_path)
    for out in ("one", "two"):
        prepare(site, tmp_path / out, "--fewest", "4")
    for name in ("train.jsonl", "test.jsonl", "corpus.jsonl", "report.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_no_package_is_on_both_sides_and_no_test_passage_is_in_training(tmp_path):
    prepare(site_with(tmp_path), tmp_path / "out", "--fewest", "4")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["documents"] == {"train": 12, "test": 4}
    assert len(rows(tmp_path / "out" / "corpus.jsonl")) == 12
    train = {row["messages"][0]["content"].lower() for row in rows(tmp_path / "out" / "train.jsonl")}
    test = [row["messages"][0]["content"].lower() for row in rows(tmp_path / "out" / "test.jsonl")]
    assert test
    assert not train & set(test)
    assert report["rows"] == {"train": len(rows(tmp_path / "out" / "train.jsonl")), "test": len(test)}


def test_ambiguous_declarations_are_skipped_and_counted(tmp_path):
    site = site_with(tmp_path)
    both = {"LICENSE": words("both", "both"), "LICENSE.APACHE": words("apache", "b"), "LICENSE.BSD": words("bsd", "b")}
    install(site, "both", "License-Expression: Apache-2.0 OR BSD-3-Clause", both)
    bsd = "Classifier: License :: OSI Approved :: BSD License"
    install(site, "some-bsd", bsd, {"LICENSE": words("bsd", "some")})
    install(site, "odd", "License-Expression: CNRI-Jython", {"LICENSE": words("odd", "odd")})
    install(site, "short", "License-Expression: MIT", {"LICENSE": "See the web."})
    prepare(site, tmp_path / "out", "--fewest", "4")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["skipped"] == {
        "no declaration that means one licence": 1,
        "no facts known about CNRI-Jython": 1,
        "several licences declared and the file name does not say which": 1,
        "shorter than 60 words": 1,
    }
    assert report["documents"] == {"train": 14, "test": 4}


def test_too_few_documents_is_exit_code_2_and_nothing_is_written(tmp_path):
    (tmp_path / "site").mkdir()
    ended = prepare(tmp_path / "site", tmp_path / "out")
    assert ended.returncode == 2
    assert "found 0 licence documents" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_the_environment_that_runs_the_tests_is_enough(tmp_path):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["rows"]["test"] >= 50
    assert {"MIT", "Apache-2.0", "BSD-3-Clause"} <= set(report["test_rows_by_licence"])
