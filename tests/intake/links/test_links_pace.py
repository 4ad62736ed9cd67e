"""Turns of hosts: bounded, fair, and none is lost."""

from __future__ import annotations

import threading
import time

from ego_assets.intake.links.lists import make_link
from ego_assets.intake.links.pace import Job, Throttle, Turns


def jobs(*urls: str) -> list[Job]:
    return [Job(make_link(url, {})) for url in urls]


def test_hosts_take_turns_and_none_has_more_than_its_share() -> None:
    urls = [f"http://{host}.org/{n}" for host in "ab" for n in range(3)]
    turns = Turns(jobs(*urls), per_host=2, pause_s=0)
    taken = [turns.take() for _ in range(4)]
    assert [job.link.host for job in taken if job] == ["a.org", "b.org", "a.org", "b.org"]
    found: list[Job | None] = []
    thread = threading.Thread(target=lambda: found.append(turns.take()))
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()  # both hosts have their share
    assert taken[1] is not None
    turns.done(taken[1])
    thread.join(10)
    assert found[0] is not None
    assert found[0].link.host == "b.org"


def test_what_waits_comes_again_and_then_all_are_over() -> None:
    turns = Turns(jobs("http://a.org/1", "http://b.org/2"), per_host=1, pause_s=0)
    first = turns.take()
    assert first is not None
    turns.again(first, 0.05)
    second = turns.take()
    assert second is not None
    assert second.link.host == "b.org"
    turns.done(second)
    assert turns.take() is first
    turns.done(first)
    assert turns.take() is None
    assert turns.left == 0


def test_a_host_that_asks_for_patience_keeps_its_other_links_waiting() -> None:
    turns = Turns(jobs("http://a.org/1", "http://a.org/2"), per_host=2, pause_s=0)
    first = turns.take()
    assert first is not None
    began = time.monotonic()
    turns.again(first, 0.2, host_after_s=0.2)
    assert turns.take() is not None
    assert time.monotonic() - began >= 0.2


def test_requests_to_a_host_are_apart() -> None:
    turns = Turns(jobs("http://a.org/1", "http://a.org/2"), per_host=2, pause_s=0.2)
    began = time.monotonic()
    assert turns.take() and turns.take()
    assert time.monotonic() - began >= 0.2


def test_the_end_lets_everybody_go() -> None:
    turns = Turns(jobs("http://a.org/1"), per_host=1, pause_s=0)
    assert turns.take()
    thread = threading.Thread(target=turns.take)
    thread.start()
    turns.end()
    thread.join(10)
    assert not thread.is_alive()


def test_bytes_come_no_faster_than_they_may() -> None:
    throttle, stop, began = Throttle(1e6), threading.Event(), time.monotonic()
    threads = [
        threading.Thread(target=lambda: [throttle.take(50_000, stop) for _ in range(2)])
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began >= 0.19
