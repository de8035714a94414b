"""Write a chat data set from the licence files that this Python environment holds.

    python scripts/prepare_licenses.py --out DIR

The task is a licence scanner's: name the licence of an unseen package's file from any passage of it, with what that
licence permits, requires and forbids. Every installed distribution declares its licence as an SPDX expression (or an
older field that means exactly one); that declaration is the label. What is ambiguous is skipped and counted.

Writes into DIR:
    train.jsonl, test.jsonl   rows {"messages": [user, assistant], "source": the text that the answer may rely on}
    corpus.jsonl              rows {"document", "licence", "text"}: the whole train documents, for a base model
    report.json               what was found, used, skipped (with reasons) and removed

The split is by package, so no passage of a test package's file is trained on; a test passage that equals a train
passage after normalisation is removed. The same distributions and seed give the same bytes. Standard library only.
Exits with 2 when too few documents are found.
"""

import argparse
import hashlib
import importlib.metadata
import json
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

QUESTION = "Name the licence of this passage, and what it permits, requires and forbids."
WINDOW_WORDS = (30, 60)
WORDS_PER_PASSAGE = 40
PASSAGES_PER_TRAIN_DOCUMENT = (12, 16)
PASSAGES_PER_TEST_DOCUMENT = 8
TEST_SHARE = 0.25
SHORTEST_DOCUMENT_WORDS = 60


@dataclass(frozen=True)
class Facts:
    """What a licence permits, requires and forbids, in this project's own words; not legal advice."""

    permits: str
    requires: str
    forbids: str


_USE = "commercial use, modification, distribution, private use"
_NO_LIABILITY = "holding the authors liable"
_KEEP = "keeping the copyright notice and the licence"
_GPL = Facts(_USE, "offering the source, the same licence for derived works, stating changes", _NO_LIABILITY)
_GPL3 = Facts(f"{_USE}, patent use", _GPL.requires, _NO_LIABILITY)
_LGPL = Facts(_USE, "offering the library's source, the same licence for the library", _NO_LIABILITY)
_MPL = Facts(
    f"{_USE}, patent use", "offering the source of changed files under this licence", f"{_NO_LIABILITY}, trademark use"
)
_GFDL = Facts(
    "copying, modification, commercial distribution", "the same licence, invariant sections kept", "limiting copies"
)
_ASK_NOTHING = "nothing"
FACTS = {
    "0BSD": Facts(_USE, _ASK_NOTHING, _NO_LIABILITY),
    "Apache-2.0": Facts(
        f"{_USE}, patent use", f"{_KEEP}, stating changes", f"{_NO_LIABILITY}, trademark use, patent lawsuits"
    ),
    "Artistic-1.0-Perl": Facts(_USE, "stating changes, renaming changed versions", f"{_NO_LIABILITY}, endorsement"),
    "BSD-2-Clause": Facts(_USE, f"{_KEEP} in source and binary forms", _NO_LIABILITY),
    "BSD-3-Clause": Facts(_USE, f"{_KEEP} in source and binary forms", f"{_NO_LIABILITY}, endorsement"),
    "BSL-1.0": Facts(_USE, f"{_KEEP} in source forms", _NO_LIABILITY),
    "CC0-1.0": Facts(_USE, _ASK_NOTHING, f"{_NO_LIABILITY}, trademark use, patent use"),
    "GFDL-1.2": _GFDL,
    "GFDL-1.3": _GFDL,
    "GPL-1.0": _GPL,
    "GPL-2.0": _GPL,
    "GPL-3.0": _GPL3,
    "HPND": Facts(_USE, _KEEP, f"{_NO_LIABILITY}, endorsement"),
    "ISC": Facts(_USE, _KEEP, _NO_LIABILITY),
    "LGPL-2.0": _LGPL,
    "LGPL-2.1": _LGPL,
    "LGPL-3.0": _LGPL,
    "MIT": Facts(f"{_USE}, sublicensing", _KEEP, _NO_LIABILITY),
    "MIT-0": Facts(f"{_USE}, sublicensing", _ASK_NOTHING, _NO_LIABILITY),
    "MIT-CMU": Facts(_USE, _KEEP, f"{_NO_LIABILITY}, endorsement"),
    "MPL-1.1": _MPL,
    "MPL-2.0": _MPL,
    "PSF-2.0": Facts(_USE, f"{_KEEP}, stating changes", f"{_NO_LIABILITY}, trademark use"),
    "Unlicense": Facts(_USE, _ASK_NOTHING, _NO_LIABILITY),
    "Zlib": Facts(_USE, "stating changes, keeping the notice", f"{_NO_LIABILITY}, claiming authorship"),
}

# A licence text does not say "only" or "or later": the GNU ids are the plain ones.
_SPDX_SUFFIX = re.compile(r"^((?:L|A)?GPL-[\d.]+|GFDL-[\d.]+)-(?:only|or-later)$")
# What people write in the old free-text `License` field, lower case, when it can mean one licence only.
_FREE_TEXT = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "isc license": "ISC",
    "mit license": "MIT",
    "mpl 2.0": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
    "psf": "PSF-2.0",
}
# "License :: OSI Approved :: BSD License" is left out: it may be any of four.
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Zero-Clause BSD (0BSD)": "0BSD",
}
_COMMON = {
    "Apache-2.0": "Apache-2.0",
    "Artistic": "Artistic-1.0-Perl",
    "BSD": "BSD-3-Clause",
    "CC0-1.0": "CC0-1.0",
    "GFDL-1.2": "GFDL-1.2",
    "GFDL-1.3": "GFDL-1.3",
    "GPL-1": "GPL-1.0",
    "GPL-2": "GPL-2.0",
    "GPL-3": "GPL-3.0",
    "LGPL-2": "LGPL-2.0",
    "LGPL-2.1": "LGPL-2.1",
    "LGPL-3": "LGPL-3.0",
    "MPL-1.1": "MPL-1.1",
    "MPL-2.0": "MPL-2.0",
}
_LICENCE_FILE = re.compile(r"^(?:LICEN[SC]ES?|COPYING)(?:[-._ ](?P<hint>.+?))?(?:\.(?:txt|md|rst))?$", re.IGNORECASE)
_PLAIN_HINTS = {None, "txt", "md", "rst"}


@dataclass(frozen=True)
class Document:
    """One licence file: `package` groups the documents that must stay on one side of the split."""

    package: str
    name: str
    licence: str
    text: str


class TooFewError(Exception):
    """The environment does not hold enough licence files."""


def declared_licences(metadata: importlib.metadata.PackageMetadata) -> list[str]:
    """The SPDX ids that a distribution declares; empty when it declares none, or none that means one licence."""
    expression = metadata.get("License-Expression") or _from_free_text(metadata.get("License") or "")
    if expression is None:
        classifiers = metadata.get_all("Classifier") or []
        known = {_CLASSIFIERS.get(c.rpartition(" :: ")[2], "") for c in classifiers if c.startswith("License :: OSI")}
        expression = known.pop() if len(known) == 1 else ""
    ids = re.split(r"\s+(?:AND|OR)\s+", re.sub(r"[()]", "", expression))
    return [_SPDX_SUFFIX.sub(r"\1", spdx.strip()) for spdx in ids if spdx.strip()]


def _from_free_text(text: str) -> str | None:
    text = text.strip()
    known = {spdx.lower(): spdx for spdx in FACTS}
    if re.fullmatch(r"[\w.+-]+(?:\s+(?:AND|OR)\s+[\w.+-]+)+", text):
        return text
    return known.get(text.lower()) or _FREE_TEXT.get(text.lower())


def licence_of_file(filename: str, licences: list[str]) -> str | None:
    """Which of the declared licences the file holds, or None when its name does not say.

    >>> licence_of_file("LICENSE.APACHE", ["Apache-2.0", "BSD-3-Clause"])
    'Apache-2.0'
    """
    match = _LICENCE_FILE.match(filename)
    if match is None:
        return None
    hint = (match["hint"] or "").lower() or None
    if hint in _PLAIN_HINTS:
        return licences[0] if len(licences) == 1 else None
    named = [spdx for spdx in licences if hint == spdx.lower() or hint.split("-")[0] == spdx.lower().split("-")[0]]
    return named[0] if len(named) == 1 else None


def read_distributions(path: list[str], skipped: Counter[str]) -> Iterator[Document]:
    """The licence files of every distribution on `path`, with those bundled inside another one."""
    for folder in _metadata_folders(path):
        distribution = importlib.metadata.Distribution.at(folder)
        package = re.sub(r"[-_.]+", "-", distribution.metadata.get("Name") or folder.name).lower()
        licences = declared_licences(distribution.metadata)
        if not licences:
            skipped["no declaration that means one licence"] += 1
            continue
        for file in _licence_files(folder):
            document = _document(package, file, folder, licences, skipped)
            if document is not None:
                yield document


def _metadata_folders(path: list[str]) -> list[Path]:
    found: dict[str, Path] = {}
    for distribution in importlib.metadata.distributions(path=path):
        files = distribution.files or []
        for file in files:
            if file.name == "METADATA" and str(file.parent).endswith(".dist-info"):
                folder = Path(str(file.locate())).parent
                if (folder / "METADATA").exists():
                    found.setdefault(file.parent.as_posix(), folder)
    return [found[name] for name in sorted(found)]


def _licence_files(folder: Path) -> list[Path]:
    """Only the distribution's own files: a licence in a subfolder belongs to a vendored part of it."""
    own = [file for place in (folder, folder / "licenses") if place.is_dir() for file in place.iterdir()]
    return sorted(file for file in own if file.is_file() and _LICENCE_FILE.match(file.name))


def _document(package: str, file: Path, folder: Path, licences: list[str], skipped: Counter[str]) -> Document | None:
    licence = licence_of_file(file.name, licences)
    if licence is None:
        skipped["several licences declared and the file name does not say which"] += 1
    elif licence not in FACTS:
        skipped[f"no facts known about {licence}"] += 1
    else:
        text = file.read_text(encoding="utf-8", errors="replace")
        if len(text.split()) >= SHORTEST_DOCUMENT_WORDS:
            return Document(package, f"{folder.name}/{file.relative_to(folder).as_posix()}", licence, text)
        skipped[f"shorter than {SHORTEST_DOCUMENT_WORDS} words"] += 1
    return None


def read_common(folder: Path) -> Iterator[Document]:
    """The operating system's licence texts (Debian and its relatives); nothing where there is no such folder."""
    for name, licence in _COMMON.items():
        file = folder / name
        if file.is_file() and not file.is_symlink():
            text = file.read_text(encoding="utf-8", errors="replace")
            yield Document(f"common-licenses/{name}", f"common-licenses/{name}", licence, text)


def split(documents: Iterable[Document]) -> tuple[list[Document], list[Document]]:
    """Train and test documents: a quarter of each licence's packages is test; a licence keeps two train packages."""
    packages: dict[str, str] = {}
    members: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        packages.setdefault(document.package, document.licence)
        members[document.package].append(document)
    by_licence: dict[str, list[str]] = defaultdict(list)
    for package, licence in packages.items():
        by_licence[licence].append(package)
    test_packages: set[str] = set()
    for candidates in by_licence.values():
        number = min(round(len(candidates) * TEST_SHARE), max(len(candidates) - 2, 0))
        test_packages.update(sorted(candidates, key=_shuffle_key)[:number])
    train = [d for package in sorted(members) if package not in test_packages for d in members[package]]
    taught = {document.licence for document in train}
    test = [d for package in sorted(test_packages) for d in members[package] if d.licence in taught]
    return train, test


def _shuffle_key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def passages(document: Document, limits: tuple[int, int], seed: int) -> list[str]:
    """Random windows of the document's words; longer documents give more, within `limits`."""
    words = document.text.split()
    chance = random.Random(f"{seed}:{document.package}:{document.name}")
    number = max(limits[0], min(limits[1], len(words) // WORDS_PER_PASSAGE))
    found = []
    for _ in range(number):
        length = min(chance.randint(*WINDOW_WORDS), len(words))
        start = chance.randint(0, len(words) - length)
        found.append(" ".join(words[start : start + length]))
    return list(dict.fromkeys(found))


def normalise(passage: str) -> str:
    """Letters and digits only, lower case: what two scanners would call the same passage."""
    return " ".join(re.findall(r"[a-z0-9]+", passage.lower()))


def row(passage: str, licence: str) -> dict[str, object]:
    """One chat row; the answer is the licence's record, word for word."""
    facts = FACTS[licence]
    record = f"Licence: {licence}\nPermits: {facts.permits}\nRequires: {facts.requires}\nForbids: {facts.forbids}"
    return {
        "messages": [
            {"role": "user", "content": f"{QUESTION}\n\n{passage}"},
            {"role": "assistant", "content": record},
        ],
        "source": f"{passage}\n\n{record}",
    }


def build(documents: list[Document], seed: int) -> tuple[dict[str, list[dict[str, object]]], dict[str, object]]:
    """The rows of each file, and the counts for the report."""
    train, test = split(documents)
    train_passages = [(p, d.licence) for d in train for p in passages(d, PASSAGES_PER_TRAIN_DOCUMENT, seed)]
    known = {normalise(passage) for passage, _ in train_passages}
    fixed = (PASSAGES_PER_TEST_DOCUMENT, PASSAGES_PER_TEST_DOCUMENT)
    test_passages = [(p, d.licence) for d in test for p in passages(d, fixed, seed)]
    kept = [(passage, licence) for passage, licence in test_passages if normalise(passage) not in known]
    random.Random(seed).shuffle(train_passages)
    files = {
        "train.jsonl": [row(passage, licence) for passage, licence in train_passages],
        "test.jsonl": [row(passage, licence) for passage, licence in kept],
        "corpus.jsonl": [{"document": d.name, "licence": d.licence, "text": d.text} for d in train],
    }
    counts: dict[str, object] = {
        "documents": {"train": len(train), "test": len(test)},
        "rows": {"train": len(train_passages), "test": len(kept)},
        "licences": len({document.licence for document in documents}),
        "removed_from_test_identical_to_train": len(test_passages) - len(kept),
        "train_rows_by_licence": _counted(licence for _, licence in train_passages),
        "test_rows_by_licence": _counted(licence for _, licence in kept),
    }
    return files, counts


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def prepare(out: Path, path: list[str], common: Path, seed: int, fewest: int) -> dict[str, object]:
    """Write the data set into `out` and return its report; TooFewError when under `fewest` documents are found."""
    skipped: Counter[str] = Counter()
    documents = [*read_distributions(path, skipped), *read_common(common)]
    files, counts = build(documents, seed)
    if len(documents) < fewest or not files["test.jsonl"]:
        raise TooFewError(
            f"found {len(documents)} licence documents ({sum(skipped.values())} skipped), needed {fewest} "
            "with at least one licence that three packages share; install the project's dependencies first"
        )
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (out / name).write_text("".join(lines), encoding="utf-8")
    report = {**counts, "skipped": _counted(skipped.elements()), "seed": seed}
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a licence-scanner chat data set from the installed packages.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--path", action="append", help="where distributions are looked for (default: sys.path)")
    parser.add_argument("--common", type=Path, default=Path("/usr/share/common-licenses"), help="the system's texts")
    parser.add_argument("--seed", type=int, default=17, help="seed of the windows")
    parser.add_argument("--fewest", type=int, default=20, help="documents below which this is an error")
    arguments = parser.parse_args()
    try:
        report = prepare(arguments.out, arguments.path or sys.path, arguments.common, arguments.seed, arguments.fewest)
    except TooFewError as error:
        print(f"prepare_licenses: {error}", file=sys.stderr)
        sys.exit(2)
    print(json.dumps(report, indent=2), file=sys.stderr)


if __name__ == "__main__":
    main()
