"""A model behind a real server, and behind every fault that a server can have."""

from __future__ import annotations

import asyncio
import doctest
import json
import logging
import os
import random
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from PIL import Image

from datasets_script.agents.prompts import describe, verify
from datasets_script.vlm import EndpointVLM, VLMRequest, VLMUnavailable
from datasets_script.vlm import endpoint as module
from datasets_script.vlm.endpoint import api_key, completions_url, error_in, retry_after


PHOTO = Image.new("RGB", (96, 64), (180, 40, 40))
REQUEST = verify.request("duplication", "an ear of the cat", (PHOTO, PHOTO, PHOTO))


def endpoint(proxy, talking, **options) -> EndpointVLM:
    settings = {"base_delay": 0.01, "timeout": 20.0, "max_retries": 3, **options}
    return EndpointVLM(str(talking), proxy.base_url, **settings)


def test_a_real_server_answers_in_order_and_tokens_are_counted(server, talking):
    vlm = EndpointVLM(str(talking), server, max_concurrency=3)
    requests = [REQUEST, describe.request(PHOTO), verify.request("fusion", "a cat and a dog", (PHOTO,) * 3)] * 2
    values = [answer.value for answer in vlm.ask(requests)]
    assert (
        values
        == [{"has_artifact": True}, {"description": "A whole thing, as it should be."}, {"has_artifact": False}] * 2
    )
    assert vlm.usage.requests == 6 and vlm.usage.prompt_tokens > 6 * 5 and vlm.usage.completion_tokens >= 6
    assert vlm.ask([]) == []


@pytest.mark.parametrize("fault", ["hang_up", "slow", "429", "500", "error_200", "error_in_choice"])
def test_what_may_pass_is_tried_again(proxy, talking, fault):
    vlm = endpoint(proxy.reset(fault, fault), talking, timeout=0.5 if fault == "slow" else 20.0)
    (answer,) = vlm.ask([REQUEST])
    assert answer.value == {"has_artifact": True}
    assert len(proxy.requests) == 3 and vlm.usage.retries == 2 and vlm.usage.repairs == 0


@pytest.mark.parametrize("fault", ["hang_up", "429", "500"])
def test_a_server_that_stays_away_stops_the_run(proxy, talking, fault):
    vlm = endpoint(proxy.reset(always=fault), talking)
    with pytest.raises(
        VLMUnavailable, match="gave no answer in 4 attempts, the last time: .*the same command continues"
    ):
        vlm.ask([REQUEST])
    assert len(proxy.requests) == 4


def test_an_error_with_status_200_stays_an_error_in_the_servers_words(proxy, talking):
    vlm = endpoint(proxy.reset(always="error_200"), talking)
    with pytest.raises(VLMUnavailable, match=r"in 4 attempts, .*HTTP 200: Provider returned error \(code 429\)"):
        vlm.ask([REQUEST])
    vlm = endpoint(proxy.reset(always="refused_200"), talking, structured_output="never")
    (answer,) = vlm.ask([REQUEST])
    assert answer.error == "the server refuses the request: an error with HTTP 200: The picture is too small"
    assert len(proxy.requests) == 2 and vlm.usage.retries == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": "overloaded"}, 500),
        ({"error": {"code": "rate_limit_exceeded"}}, 500),
        ({"error": {"message": "no", "code": "400"}}, 400),
        ({"error": {"message": "no", "code": 1301}}, 500),
        ({"object": "error", "message": "no", "type": "BadRequestError", "code": 400}, 400),
        ({"error": {}, "choices": [{"message": {"content": "No."}}]}, None),
        ([{"error": "no"}], None),
    ],
)
def test_errors_are_found_in_bodies(body, status):
    found = error_in(json.dumps(body).encode())
    assert (found and found[0]) == status and (found is None or found[1])


def test_an_answer_in_parts_is_joined_without_the_reasoning(proxy, talking):
    vlm = endpoint(proxy.reset("parts"), talking)
    assert vlm.ask([REQUEST])[0].value == {"has_artifact": True} and vlm.usage.repairs == 0


def test_a_server_that_is_not_there_stops_the_run(online):
    vlm = EndpointVLM("m", "http://127.0.0.1:9/v1", max_retries=1, base_delay=0.01)
    with pytest.raises(VLMUnavailable, match="gave no answer in 2 attempts, the last time: ConnectError"):
        vlm.ask([REQUEST])


@pytest.mark.parametrize(
    ("fault", "message"), [("401", "refuses the key .*ARTIAGENT_API_KEY"), ("404", "check both names")]
)
def test_what_will_not_pass_is_not_tried_again(proxy, talking, fault, message):
    vlm = endpoint(proxy.reset(always=fault), talking)
    with pytest.raises(VLMUnavailable, match=message):
        vlm.ask([REQUEST])
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("fault", ["html", "cut_json", "wrong_schema", "prose", "empty", "huge", "413"])
def test_a_bad_answer_is_asked_for_once_more(proxy, talking, fault):
    vlm = endpoint(proxy.reset(fault), talking)
    (answer,) = vlm.ask([REQUEST])
    assert answer.value == {"has_artifact": True}
    assert len(proxy.requests) == 2 and vlm.usage.repairs == 1 and vlm.usage.failures == 0


@pytest.mark.parametrize(
    ("fault", "error", "raw"),
    [
        ("html", "no chat completion", "<html>"),
        ("cut_json", "no chat completion", '{"id"'),
        ("wrong_schema", "does not fit its schema", '{"has_artifact": "perhaps"'),
        ("prose", "holds no JSON object", "I would rather not."),
        ("empty", "the answer is empty", ""),
        ("huge", "the answer is too long: over 1,000,000 bytes", '{"id"'),
        ("413", "the server refuses the request: HTTP 413", "as you wished"),
    ],
)
def test_an_answer_that_stays_bad_costs_its_request_alone(proxy, talking, fault, error, raw):
    vlm = endpoint(proxy.reset(fault, "pass", fault), talking, max_concurrency=1)
    bad, good = vlm.ask([REQUEST, describe.request(PHOTO)])
    assert bad.value is None and error in bad.error and raw in bad.raw and len(bad.raw) <= 4000
    assert good.value is not None and vlm.usage.failures == 1 and len(proxy.requests) == 3


def test_the_repair_round_tells_what_was_wrong(proxy, talking):
    endpoint(proxy.reset("prose"), talking).ask([REQUEST])
    text = proxy.requests[1]["messages"][0]["content"][-1]["text"]
    assert text.startswith(REQUEST.prompt) and "I would rather not." in text and "holds no JSON object" in text


def test_schemas_are_sent_until_the_server_refuses_them(proxy, talking, caplog):
    vlm = endpoint(proxy.reset(always="no_schemas"), talking, max_concurrency=1)
    assert [answer.error for answer in vlm.ask([REQUEST, REQUEST])] == ["", ""]
    sent = ["response_format" in request and request["response_format"] is not None for request in proxy.requests]
    assert sent == [True, False, False] and "refuses JSON schemas" in caplog.text
    proxy.reset(always="pass")
    endpoint(proxy, talking, structured_output="never").ask([REQUEST])
    assert proxy.requests[0].get("response_format") is None


def test_a_schema_reaches_the_server_as_it_is(proxy, talking):
    endpoint(proxy.reset(), talking).ask([REQUEST])
    sent = proxy.requests[0]["response_format"]
    assert sent["type"] == "json_schema" and sent["json_schema"]["schema"] == REQUEST.schema


def test_schemas_refused_to_many_at_once_cost_no_repair(proxy, talking):
    vlm = endpoint(proxy.reset(always="no_schemas"), talking)
    assert all(answer.value for answer in vlm.ask([REQUEST] * 4)) and vlm.usage.repairs == vlm.usage.retries == 0


def test_no_token_of_the_user_goes_to_a_server_without_a_key(proxy, talking, monkeypatch):
    for name in ("ARTIAGENT_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_user")
    endpoint(proxy.reset(), talking).ask([REQUEST])
    assert proxy.keys == {"Bearer none"}


def test_it_can_be_asked_where_a_loop_runs(proxy, talking):
    async def notebook():
        return endpoint(proxy.reset(), talking).ask([REQUEST])

    assert asyncio.run(notebook())[0].value == {"has_artifact": True}


def test_concurrency_is_bounded(proxy, talking):
    vlm = endpoint(proxy.reset(*["slow"] * 4), talking, max_concurrency=2, timeout=0.4)
    start = time.monotonic()
    assert all(answer.value for answer in vlm.ask([REQUEST] * 4))
    assert time.monotonic() - start > 2 * 0.4


def test_the_key_is_sent_and_told_to_no_one(proxy, talking, monkeypatch, caplog):
    monkeypatch.setenv("ARTIAGENT_API_KEY", "sk-very-secret")
    with caplog.at_level(logging.DEBUG):
        vlm = endpoint(proxy.reset("500", always="401"), talking)
        with pytest.raises(VLMUnavailable) as raised:
            vlm.ask([REQUEST])
    assert proxy.keys == {"Bearer sk-very-secret"}
    told = [caplog.text, str(raised.value), repr(vlm), str(vlm.__dict__), str(vlm.identity())]
    assert not any("sk-very-secret" in text for text in told)


def test_keys_go_to_their_owners_only(monkeypatch):
    for name in ("ARTIAGENT_API_KEY", "OPENAI_API_KEY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf")
    monkeypatch.setenv("OPENAI_API_KEY", "oa")
    assert api_key("https://router.huggingface.co/v1") == "hf" and api_key("https://api.openai.com/v1") == "oa"
    assert api_key("http://localhost:8000/v1") is None and api_key("https://evil-openai.com/v1") is None
    monkeypatch.setenv("ARTIAGENT_API_KEY", "own")
    assert api_key("http://localhost:8000/v1") == "own"
    assert os.environ["HF_TOKEN"] == "hf"


def test_pauses_grow_to_a_minute_and_differ(online):
    vlm = EndpointVLM("m", "http://127.0.0.1:9/v1", base_delay=1.0)
    pauses = [vlm._pause(attempt) for attempt in range(10)]
    assert all(0.5 * 2**n <= pause <= 2**n for n, pause in enumerate(pauses[:6]))
    assert all(30 <= pause <= 60 for pause in pauses[6:]) and len(set(pauses)) == 10


@pytest.mark.parametrize(
    ("value", "seconds"), [("3", 3), ("0.5", 0.5), ("-1", 0), ("1e9", 600), ("nan", 0), ("", 0), ("x", 0)]
)
def test_retry_after_as_a_number(value, seconds):
    assert retry_after(value) == seconds


def test_retry_after_as_a_date_also_when_the_clock_is_wrong():
    now = datetime.now(UTC)
    assert 25 < retry_after(format_datetime(now + timedelta(seconds=30), usegmt=True)) <= 30
    assert retry_after(format_datetime(now - timedelta(days=400), usegmt=True)) == 0
    assert retry_after(format_datetime(now + timedelta(days=400), usegmt=True)) == 600


def test_offline_mode_is_told(proxy, talking, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(VLMUnavailable, match="HF_HUB_OFFLINE is set"):
        endpoint(proxy.reset(), talking).ask([REQUEST])


def test_faults_at_random_give_the_same_answers(proxy, talking, request):
    count = 60 if request.config.getoption("--full-faults") else 12
    chance = random.Random(0)
    transient = ["pass", "pass", "hang_up", "429", "500", "prose", "html"]
    requests = [
        VLMRequest("caption", "1", f"Task: caption.\nPhotograph {number}.", (PHOTO,), {"type": "object"})
        for number in range(count)
    ]
    vlm = endpoint(proxy.reset(*(chance.choice(transient) for _ in range(count))), talking, max_retries=20)
    answers = vlm.ask(requests)
    assert sum(answer.value == {"caption": "a thing"} for answer in answers) >= count * 0.8
    assert all(answer.value or answer.error for answer in answers)


@pytest.mark.parametrize(
    ("base_url", "path"),
    [
        ("http://localhost:8000/v1/", "/v1/chat/completions"),
        ("http://localhost:8000", "/v1/chat/completions"),
        ("http://localhost:8000/v1/chat/completions", "/v1/chat/completions"),
        ("https://host/deployments/mine?version=2", "/deployments/mine/v1/chat/completions?version=2"),
    ],
)
def test_completions_are_found_below_any_base_url(base_url, path):
    assert completions_url(base_url).endswith(path) and completions_url(base_url).count("/chat") == 1


@pytest.mark.parametrize("body", ["[]", "null", '{"choices": []}', '{"choices": [{"message": {"content": [1]}}]}'])
def test_other_json_is_no_chat_completion(online, body):
    vlm = EndpointVLM("m", "http://127.0.0.1:9/v1")
    with pytest.raises(module._BadReplyError, match="no chat completion") as raised:
        vlm._read(body.encode())
    assert raised.value.text == body and vlm.usage.prompt_tokens == 0


def test_examples_run():
    results = doctest.testmod(module)
    assert results.attempted and not results.failed
