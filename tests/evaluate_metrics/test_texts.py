"""Tests of `rouge` against `rouge_score`, and of `css` on tiny random models against a slow reference."""

from __future__ import annotations

import doctest
import json
import shutil
import string
import sys

import evaluate
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from transformers import BertConfig, BertModel, BertTokenizer

import evaluate_metrics.functional.css as css_module
import evaluate_metrics.functional.rouge as rouge_module
from evaluate_metrics import metric_path
from evaluate_metrics.functional.css import DEFAULT_MODEL, cosine_similarity, css, load_sentence_model
from evaluate_metrics.functional.intervals import Bootstrap
from evaluate_metrics.functional.rouge import ROUGE_TYPES, rouge, rouge_statistics


NO_INTERVALS = Bootstrap(n_resamples=0)

PREDICTIONS = [
    "The left hand has six fingers.",
    "a melted ear\nand two noses on the face",
    None,
    " ",
    "the sign reads BAKRY; its letters are deformed",
]
REFERENCES = [
    "The hand shows six finger",
    "the face has two noses\nand an ear that melted",
    "an arm is missing",
    "text cannot be read",
    "letters of the sign are deformed",
]

words = st.sampled_from(
    ["finger", "fingers", "hand", "The", "the", "distorted", "distortion", "six", "6", "\n", "Ärmel"]
)
texts = st.lists(words, max_size=9).map(" ".join)


def lcs_f(prediction, reference):
    """Compute ROUGE-L F of lists of words with the textbook table."""
    table = np.zeros((len(prediction) + 1, len(reference) + 1))
    for row, word in enumerate(prediction):
        for column, other in enumerate(reference):
            longer = max(table[row, column + 1], table[row + 1, column])
            table[row + 1, column + 1] = table[row, column] + 1 if word == other else longer
    return 2 * table[-1, -1] / (len(prediction) + len(reference))


@settings(max_examples=60)
@given(pairs=st.lists(st.tuples(texts, texts.filter(str.strip)), min_size=1, max_size=5), use_stemmer=st.booleans())
def test_rouge_equals_rouge_score(pairs, use_stemmer):
    predictions, references = zip(*pairs, strict=True)
    scorer = RougeScorer(ROUGE_TYPES, use_stemmer=use_stemmer)
    scores = [scorer.score(reference, prediction) for prediction, reference in pairs]
    result = rouge(predictions, references, use_stemmer, NO_INTERVALS)
    for name in ROUGE_TYPES:
        assert result[name] == pytest.approx(np.mean([of_sample[name].fmeasure for of_sample in scores]))
        assert type(result[name]) is float


@given(
    prediction=st.lists(st.sampled_from("abcd"), min_size=1, max_size=8),
    reference=st.lists(st.sampled_from("abcd"), min_size=1, max_size=8),
)
def test_rouge_l_is_the_longest_common_subsequence(prediction, reference):
    result = rouge([" ".join(prediction)], [" ".join(reference)], False, NO_INTERVALS)
    assert result["rougeL"] == pytest.approx(lcs_f(prediction, reference))


def test_rouge_stems_unless_told_otherwise():
    assert rouge(["fingers"], ["finger"])["rougeL"] == 1.0
    assert rouge(["fingers"], ["finger"], use_stemmer=False)["rougeL"] == 0.0


def test_rouge_of_no_text_is_0_and_counted():
    statistics = rouge_statistics(PREDICTIONS, REFERENCES)
    assert statistics.shape == (5, 4)
    assert (statistics[2:4] == 0).all()
    assert (statistics[[0, 1, 4]] > 0).all()
    result = rouge(PREDICTIONS, REFERENCES, bootstrap=NO_INTERVALS)
    assert result["rougeL"] == pytest.approx(statistics[:, 2].mean())
    assert result["empty_rate"] == 0.4


def test_rouge_intervals_resample_samples():
    result = rouge(PREDICTIONS, REFERENCES, bootstrap=Bootstrap(300, 0.9, seed=4))
    statistics = rouge_statistics(PREDICTIONS, REFERENCES)[:, 2]
    generator = np.random.default_rng(4)
    means = [statistics[generator.integers(5, size=5)].mean() for _ in range(300)]
    assert result["rougeL_interval"] == pytest.approx(np.quantile(means, [0.05, 0.95]))
    assert result == rouge(PREDICTIONS, REFERENCES, bootstrap=Bootstrap(300, 0.9, seed=4))


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a"], ["a", "b"], "`predictions` must have the length of `references`, 2, got 1"),
        (["a", "a"], ["a", " "], "`references` must be texts that are not blank, got ' ' at 1"),
        (["a"], [None], "got None at 0"),
        ([], [], "at least one sample"),
    ],
)
def test_mistakes_are_named(predictions, references, message, encoder):
    with pytest.raises(ValueError, match=message):
        rouge(predictions, references)
    with pytest.raises(ValueError, match=message):
        css(predictions, references, encoder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Make a random BERT with a vocabulary of characters; wide weights make its embeddings differ."""
    folder = tmp_path_factory.mktemp("bert")
    letters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(bert):
    return load_sentence_model(str(bert))


def as_published(bert, folder, pooling, length):
    """Write a model in the layout that sentence-transformers has used on the Hub since 2021."""
    shutil.copytree(bert, folder)
    (folder / "1_Pooling").mkdir()
    types = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    files = {
        "modules.json": [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{name}"}
            for index, (path, name) in enumerate(types)
        ],
        "sentence_bert_config.json": {"max_seq_length": length, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": 16,
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
            "pooling_mode_max_tokens": pooling == "max",
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@torch.no_grad()
def slow_css(bert, prediction, reference, pooling="mean", length=128):
    """Compute CSS one text at a time, without batches and masks."""
    model, tokenizer = BertModel.from_pretrained(bert).eval(), BertTokenizer.from_pretrained(bert)
    embeddings = []
    for text in (prediction, reference):
        tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=length)
        states = model(**tokens).last_hidden_state[0]
        pooled = {"mean": states.mean(0), "cls": states[0], "max": states.max(0).values}[pooling]
        embeddings.append(pooled.double().tolist())
    first, second = embeddings
    product = sum(a * b for a, b in zip(first, second, strict=True))
    return product / (sum(a * a for a in first) ** 0.5 * sum(b * b for b in second) ** 0.5)


def test_css_of_a_plain_folder_is_mean_pooled(bert, encoder):
    result = css(PREDICTIONS, REFERENCES, encoder, batch_size=2, bootstrap=NO_INTERVALS)
    slow = [slow_css(bert, PREDICTIONS[index], REFERENCES[index]) for index in (0, 1, 4)]
    assert max(slow) - min(slow) > 0.01
    # Two of the five predictions are empty and score 0.
    assert result["css"] == pytest.approx(sum(slow) / 5, abs=1e-6)
    assert (result["empty_rate"], result["pooling"], result["model"]) == (0.4, "mean", bert.name)


@pytest.mark.parametrize(("pooling", "length"), [("mean", 128), ("cls", 128), ("max", 128), ("mean", 8)])
def test_css_reads_pooling_and_length_of_a_published_model(bert, tmp_path, pooling, length):
    folder = as_published(bert, tmp_path / "model", pooling, length)
    result = css(PREDICTIONS[:2], REFERENCES[:2], str(folder), bootstrap=NO_INTERVALS)
    slow = [slow_css(bert, PREDICTIONS[index], REFERENCES[index], pooling, length) for index in (0, 1)]
    assert result["css"] == pytest.approx(np.mean(slow), abs=1e-6)
    assert result["pooling"] == pooling


def test_css_does_not_depend_on_batches_or_order(encoder):
    texts = [text for text in REFERENCES for _ in range(3)]
    first = css(texts, texts[::-1], encoder, batch_size=1)
    assert first == css(texts, texts[::-1], encoder, batch_size=1)
    assert first["css"] == pytest.approx(css(texts, texts[::-1], encoder, batch_size=15)["css"], abs=1e-6)
    assert css(texts, texts, encoder)["css"] == pytest.approx(1.0)
    low, high = first["css_interval"]
    assert low < first["css"] < high


@pytest.mark.parametrize("answer", ["a hand", None])
def test_css_and_rouge_agree_how_uncertain_a_rate_of_none_or_all_is(encoder, answer):
    answers, references = [answer] * 4, ["a hand"] * 4
    result, expected = css(answers, references, encoder), rouge(answers, references)
    low, high = result["empty_rate_interval"]
    assert [low, high] == expected["empty_rate_interval"]
    # Wilson's interval of none or all of 4: 1.96² / (4 + 1.96²) = 0.490.
    assert high - low == pytest.approx(0.490, abs=5e-4)


@given(st.lists(st.lists(st.floats(0.1, 9), min_size=3, max_size=3), min_size=1, max_size=4))
def test_cosine_is_of_rows(rows):
    first = np.array(rows)
    second = first[:, ::-1]
    expected = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in zip(first, second, strict=True)]
    assert cosine_similarity(first, second).tolist() == pytest.approx(expected)


def test_a_folder_is_pinned_by_what_the_model_reads(bert, tmp_path):
    folder = as_published(bert, tmp_path / "model", "mean", 128)
    revisions = [load_sentence_model(str(folder)).revision]
    (folder / "notes.md").write_text("anything")
    revisions.append(load_sentence_model(str(folder)).revision)
    as_published(bert, tmp_path / "other", "cls", 128)
    revisions.append(load_sentence_model(str(tmp_path / "other")).revision)
    assert revisions[0] == revisions[1] != revisions[2]
    assert revisions[0].startswith("sha256:")


@pytest.fixture
def cached_default(bert, tmp_path, monkeypatch):
    """Put the tiny model under the default model's name in the Hub cache, and return its commit."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / f"models--{DEFAULT_MODEL.replace('/', '--')}"
    as_published(bert, cached / "snapshots" / commit, "cls", 128)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return commit


def test_a_model_in_the_cache_is_pinned_by_its_commit(cached_default):
    result = css(PREDICTIONS, REFERENCES, bootstrap=NO_INTERVALS)
    assert [result[name] for name in ("model", "revision", "pooling")] == [DEFAULT_MODEL, cached_default, "cls"]
    with pytest.raises(OSError, match=f"hf download {DEFAULT_MODEL} --revision v2"):
        css(PREDICTIONS, REFERENCES, revision="v2")


def test_without_the_model_css_says_what_to_fetch():
    with pytest.raises(OSError, match=f"run `hf download {DEFAULT_MODEL}` once with a network, or give a folder"):
        css(PREDICTIONS, REFERENCES)


def test_a_pickle_is_no_model(bert, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(bert, folder)
    torch.save(BertModel.from_pretrained(bert).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match="with safetensors weights"):
        load_sentence_model(str(folder))


@pytest.mark.parametrize(
    ("package", "score", "message"),
    [
        ("rouge_score.rouge_scorer", rouge, r"needs the package rouge_score: pip install 'artiagent\[evaluate\]'"),
        ("sentence_transformers", css, r"needs the package sentence-transformers: pip install 'artiagent\[css\]'"),
    ],
)
def test_a_missing_package_is_named(package, score, message, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # makes Python's import fail
    with pytest.raises(ImportError, match=message):
        score(["a hand"], ["a hand"])


def test_a_folder_has_no_revision(bert):
    with pytest.raises(ValueError, match="`revision` must be left out for a folder, got 'main'"):
        load_sentence_model(str(bert), "main")


def test_modules_equal_the_functions(bert, encoder):
    modules = {name: evaluate.load(metric_path(name)) for name in ("rouge", "css")}
    options = {"n_resamples": 50, "confidence": 0.9, "seed": 3}
    expected = {
        "rouge": rouge(PREDICTIONS, REFERENCES, bootstrap=Bootstrap(50, 0.9, 3)),
        "css": css(PREDICTIONS, REFERENCES, encoder, bootstrap=Bootstrap(50, 0.9, 3)),
    }
    for name, keywords in (("rouge", options), ("css", {"model": str(bert), **options})):
        metric = modules[name]
        assert metric.compute(predictions=PREDICTIONS, references=REFERENCES, **keywords) == expected[name]
        for start in (0, 3):
            stop = start + 3
            metric.add_batch(predictions=PREDICTIONS[start:stop], references=REFERENCES[start:stop])
        assert metric.compute(**keywords) == expected[name]


def test_modules_combine(cached_default):
    combined = evaluate.combine([metric_path("rouge"), metric_path("css")])
    result = combined.compute(predictions=PREDICTIONS, references=REFERENCES, n_resamples=0)
    assert result["rougeL"] == rouge(PREDICTIONS, REFERENCES)["rougeL"]
    assert result["css"] == css(PREDICTIONS, REFERENCES)["css"]


@pytest.mark.parametrize(("name", "module"), [("rouge", rouge_module), ("css", css_module)])
def test_examples(name, module):
    folder = metric_path(name)
    example = doctest.DocTestParser().get_doctest(evaluate.load(folder).inputs_description, {}, name, None, None)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
    for results in (doctest.testmod(module), doctest.testfile(f"{folder}/README.md", module_relative=False)):
        assert (results.failed, bool(results.attempted)) == (0, True)


def test_texts_in_other_scripts_are_counted_where_rouge_sees_nothing():
    texts = ["The hand has six fingers.", "La cafetière a un bec de trop.", "多了一根手指", "มือมีหกนิ้ว", "6 пальцев", ""]
    assert rouge_module.count_unread(texts) == 3
    assert rouge_module.rouge(texts[2:3], texts[2:3])["rougeL"] == 0
