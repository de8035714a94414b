"""Texts of exactly so many tokens, whichever way tokens can be counted."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import InputError
from orchestrator.loadgen import tokens
from orchestrator.loadgen.probe import Server, probe
from tests.loadgen.fake_api import TEMPLATE_TOKENS, FakeApi, pieces, serving, single_digits

SERVER = Server(url="http://h/v1", model="m")


def usage_of(count):
    return lambda endpoint, text: TEMPLATE_TOKENS + count(text)


def counting(count, calls):
    def counted(text):
        calls.append(text)
        return count(text)

    return counted


def vocabulary(server, *, tokenizer=None, nonce=True):
    return tokens.vocabulary_of(server, "chat", tokenizer=tokenizer, nonce=nonce)


def prompt(vocabulary, wanted, *, digits="01234567890123456", key=5):
    text = tokens.Passages(vocabulary, seed=3).text(key, wanted - vocabulary.overhead)
    return f"[{digits}]{text}"


@given(st.lists(st.integers(1, 4), min_size=1, max_size=60))
def test_words_of_one_token_are_found_among_others(costs):
    words = [f"w{number}" for number in range(len(costs))]
    cost = dict(zip(words, costs, strict=True))

    def count(text):
        return 7 + sum(cost.get(word, 1) for word in text.split())

    assert tokens.additive(words, count, budget=10_000) == [word for word in words if cost[word] == 1]


def test_where_all_words_are_good_two_counts_are_enough():
    calls = []
    assert len(tokens.additive(["a", "b", "c"], counting(lambda text: len(text.split()), calls), budget=80)) == 3
    assert len(calls) == 2


def test_a_single_bad_word_is_found_by_halving():
    calls = []
    words = [f"good{number}" for number in range(63)] + ["bad"]
    found = tokens.additive(words, counting(lambda text: len(text.split()) + text.count("bad"), calls), budget=80)
    assert found == words[:-1]
    assert len(calls) <= 2 + 6


def test_a_budget_is_kept_and_what_was_found_is_used():
    calls = []
    words = ["good"] * 8 + [f"bad{number}" for number in range(56)]
    found = tokens.additive(words, counting(lambda text: len(text.split()) + text.count("bad"), calls), budget=6)
    assert found == ["good"] * 8
    assert len(calls) <= 6


@pytest.mark.parametrize("wanted", [40, 41, 512, 5000, 40_000])
def test_with_the_servers_tokenizer_a_prompt_is_as_long_as_wanted(wanted):
    server = replace(SERVER, tokenize=single_digits, prompt_tokens=usage_of(single_digits))
    made = vocabulary(server)
    assert made.exact
    assert made.residual == "none"
    assert TEMPLATE_TOKENS + single_digits(prompt(made, wanted)) == wanted


def test_a_nonce_of_varying_length_is_counted_at_its_mean_and_said():
    server = replace(SERVER, tokenize=pieces, prompt_tokens=usage_of(pieces))
    made = vocabulary(server)
    low, high = made.marker_spread
    assert low < high
    assert made.residual == f"the nonce has {low} to {high} tokens, counted as {made.marker_tokens}"
    lengths = [TEMPLATE_TOKENS + pieces(prompt(made, 300, digits=nonce)) for nonce in tokens.sample_nonces(50)]
    assert abs(sum(lengths) / len(lengths) - 300) < 1


def test_without_a_tokenizer_the_usage_of_few_requests_does_as_well():
    calls = []
    server = replace(SERVER, prompt_tokens=lambda _, text: TEMPLATE_TOKENS + counting(single_digits, calls)(text))
    made = vocabulary(server)
    assert made.exact
    assert made.counted_by == "the usage of one-token requests"
    assert TEMPLATE_TOKENS + single_digits(prompt(made, 512)) == 512
    assert len(calls) < 20


def test_where_nothing_counts_it_is_said():
    made = vocabulary(replace(SERVER, prompt_tokens=lambda endpoint, text: None))
    assert not made.exact
    assert made.counted_by.startswith("nothing")
    assert "approximate" in made.residual


def test_where_no_word_is_one_token_lengths_are_about_right():
    def letters(text):
        return len(text)

    made = vocabulary(replace(SERVER, tokenize=letters, prompt_tokens=usage_of(letters)))
    assert not made.exact
    assert TEMPLATE_TOKENS + letters(prompt(made, 2000)) == pytest.approx(2000, rel=0.05)


def test_without_a_nonce_an_opener_holds_the_first_place():
    server = replace(SERVER, tokenize=pieces, prompt_tokens=usage_of(pieces))
    made = vocabulary(server, nonce=False)
    text = tokens.OPENER + tokens.Passages(made, seed=3).text(0, 100 - made.overhead)
    assert TEMPLATE_TOKENS + pieces(text) == 100


def test_the_template_is_taken_from_the_probe_where_no_request_may_be_made():
    made = vocabulary(replace(SERVER, tokenize=single_digits, template_tokens=TEMPLATE_TOKENS))
    assert made.overhead_known
    assert TEMPLATE_TOKENS + single_digits(prompt(made, 128)) == 128
    unknown = vocabulary(replace(SERVER, tokenize=single_digits))
    assert "template's tokens are not known" in unknown.residual
    assert single_digits(prompt(unknown, 128)) == 128


def test_a_server_is_asked_once():
    calls = []
    server = replace(SERVER, tokenize=counting(single_digits, calls), prompt_tokens=usage_of(single_digits))
    first = vocabulary(server)
    asked = len(calls)
    assert vocabulary(server) is first
    assert len(calls) == asked < 90


def test_a_real_tokenizer_file_counts_exactly(tmp_path):
    folder = write_tokenizer(tmp_path)
    from tokenizers import Tokenizer

    real = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def count(text):
        return len(real.encode(text, add_special_tokens=False).ids)

    for path in (folder, folder / "tokenizer.json"):
        made = vocabulary(replace(SERVER, prompt_tokens=usage_of(count)), tokenizer=path)
        assert made.exact
        assert made.counted_by == f"tokenizer {path.name}"
        assert 20 < len(made.words) < 200  # the file was trained to know some of the words and not others
        low, high = made.marker_spread
        assert abs(TEMPLATE_TOKENS + count(prompt(made, 512)) - 512) <= high - low


def test_a_tokenizer_that_is_none_is_said(tmp_path):
    with pytest.raises(InputError, match="no tokenizer at"):
        vocabulary(SERVER, tokenizer=tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="is not a tokenizer"):
        vocabulary(SERVER, tokenizer=tmp_path)


@given(st.integers(0, 1 << 45), st.integers(0, 40_000))
def test_a_passage_has_as_many_words_as_wanted_and_depends_on_its_number_alone(key, count):
    made = vocabulary(SERVER_OF_WORDS)
    passages = tokens.Passages(made, seed=1)
    text = passages.text(key, count)
    assert len(text.split()) == count
    assert text == tokens.Passages(made, seed=1).text(key, count)
    assert set(text.split()) <= set(made.words)


def test_passages_differ_by_number_and_seed_from_their_first_words_on():
    made = vocabulary(SERVER_OF_WORDS)
    passages = tokens.Passages(made, seed=1)
    starts = {re.sub(r"^((?: \w+){12}).*", r"\1", passages.text(key, 512)) for key in range(20_000)}
    assert len(starts) == 20_000
    assert passages.text(7, 512) != tokens.Passages(made, seed=2).text(7, 512)


def test_over_real_http_usage_equals_the_wanted_length():
    with serving(FakeApi(count=single_digits)) as api:
        server = probe(api.url)
        made = vocabulary(server)
        assert server.prompt_tokens is not None
        assert server.prompt_tokens("chat", prompt(made, 777)) == 777


SERVER_OF_WORDS = replace(SERVER, tokenize=lambda text: len(text.split()), template_tokens=0)


def write_tokenizer(folder):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    known = " ".join(
        ["the of and to in is that for it was with be by on not he"] * 30
        + list(tokens.Passages(vocabulary(SERVER_OF_WORDS), seed=1).text(0, 60).split()) * 30
    )
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([known], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
