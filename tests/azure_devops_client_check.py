"""Drives a simulator with Microsoft's azure-devops package and compares what it shows.

Reads from standard input what to expect of a pool:
{"pool": "linux", "agents": [{"name": "a", "status": "online", "enabled": true, "assignedRequest": 4711}]}
and exits with 1 when anything differs.
"""

import argparse
import json
import os
import sys

from azure.devops.connection import Connection
from azure.devops.exceptions import AzureDevOpsServiceError
from azure.devops.v7_1.task_agent.models import TaskAgent
from msrest.authentication import BasicAuthentication


class Mismatch(Exception):
    """The simulator did not show what was expected."""


def expect(what, actual, wanted):
    if actual != wanted:
        raise Mismatch(f"{what}: got {actual!r}, want {wanted!r}")


def shown(agent):
    request = agent.assigned_request
    return {
        "name": agent.name,
        "status": agent.status,
        "enabled": agent.enabled,
        "assignedRequest": request.request_id if request else None,
    }


def check_pool(client, wanted):
    pools = client.get_agent_pools(pool_name=wanted["pool"], pool_type="automation")
    expect("pools of that name", [pool.name for pool in pools], [wanted["pool"]])
    expect("pools of another name", client.get_agent_pools(pool_name="no such pool") or [], [])
    agents = client.get_agents(pools[0].id, include_capabilities=True, include_assigned_request=True)
    by_name = {agent.name: shown(agent) for agent in agents}
    expect("agents", by_name, {agent["name"]: agent for agent in wanted["agents"]})
    for agent in agents:
        expect(f"creation time of {agent.name}", agent.created_on is not None, True)
        request = agent.assigned_request
        if request:
            expect("pool of the request", request.pool_id, pools[0].id)
            expect("pipeline of the request", bool(request.definition.name), True)
    return pools[0].id


def check_life(client, pool):
    """Registers, disables and deletes an agent as an orchestrator would."""
    wanted = TaskAgent(name="python-client", version="4.275.0", max_parallelism=1,
                       system_capabilities={"stove": "1"})
    made = client.add_agent(wanted, pool)
    expect("status of a new agent", made.status, "offline")
    expect("client id of a new agent", bool(made.authorization.client_id), True)
    try:
        client.add_agent(wanted, pool)
        raise Mismatch("a second agent of the same name was accepted")
    except AzureDevOpsServiceError as error:
        expect("error of a taken name", error.type_key, "TaskAgentExistsException")
    changed = client.update_agent(TaskAgent(id=made.id, enabled=False), pool, made.id)
    expect("a disabled agent", changed.enabled, False)
    read = client.get_agent(pool, made.id, include_capabilities=True)
    expect("capabilities", read.system_capabilities, {"stove": "1"})
    client.delete_agent(pool, made.id)
    try:
        client.get_agent(pool, made.id)
        raise Mismatch("a deleted agent is still there")
    except AzureDevOpsServiceError as error:
        expect("error of a deleted agent", error.type_key, "TaskAgentNotFoundException")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True, help="URL of the organisation")
    url = parser.parse_args().url
    wanted = json.load(sys.stdin)
    credentials = BasicAuthentication("", os.environ["AZURE_DEVOPS_PAT"])
    connection = Connection(base_url=url, creds=credentials)
    client = connection.clients_v7_1.get_task_agent_client()
    try:
        pool = check_pool(client, wanted)
        check_life(client, pool)
    except Mismatch as mismatch:
        sys.exit(f"mismatch: {mismatch}")


if __name__ == "__main__":
    main()
