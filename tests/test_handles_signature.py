"""What ``init_agent`` takes, and what it refuses because another worker could not know it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyflue import ConfigurationError, create_agent, init_agent, load_project, open_runtime

IN_MEMORY = {"PYFLUE_DATABASE_URL": "memory:"}


@pytest.mark.parametrize("given", [{"tools": [len]}, {"env": {"A": "b"}}, {"skills": ["x"]}, {"subagents": ["x"]}])
async def test_what_only_this_process_would_know_is_refused(given: dict[str, object]) -> None:
    agent = create_agent(lambda: {"model": "offline/echo"}, name="one")

    with pytest.raises(ConfigurationError, match="travels in payload"):
        await init_agent(agent, **given)  # type: ignore[arg-type]


async def test_two_agents_of_one_file_do_not_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = create_agent(lambda: {"model": "offline/echo"})
    other = create_agent(lambda: {"model": "offline/echo", "instructions": "Be brief."})

    async with open_runtime(load_project(env=IN_MEMORY)):
        await init_agent(one)
        await init_agent(one, id="again")

        with pytest.raises(ConfigurationError, match="Two agents are called"):
            await init_agent(other)


async def test_a_handle_knows_its_agent_its_instance_and_its_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    agent = create_agent(lambda: {"model": "offline/echo"}, name="support")

    async with open_runtime(load_project(env=IN_MEMORY)):
        handle = await init_agent(agent, id="42", name="blue")

    assert (handle.agent_name, handle.instance_id, handle.environment_name) == ("support", "42", "blue")
