"""Checks before a study starts."""

from __future__ import annotations

from contextlib import suppress

import torch

from trainables.tasks.preflight import use_one_thread


def test_checks_use_one_thread_and_give_the_others_back() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with suppress(ValueError), use_one_thread():
            assert torch.get_num_threads() == 1
            raise ValueError("planted")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
