"""How channels are opened."""

import json

import pytest

from taskforge_sdk.channels import is_dns_name, options_for


@pytest.mark.parametrize(
    ("address", "is_name"),
    [
        ("127.0.0.1:50051", False),
        ("[::1]:50051", False),
        ("::1", False),
        ("unix:/run/taskforge.sock", False),
        ("ipv4:10.0.0.1:50051,10.0.0.2:50051", False),
        ("localhost:50051", True),
        ("jobs.taskforge.svc:50052", True),
        ("dns:///jobs.taskforge.svc:50052", True),
        ("jobs", True),
    ],
)
def test_calls_are_spread_over_the_servers_behind_a_name(address: str, is_name: bool) -> None:
    assert is_dns_name(address) is is_name

    config = dict(options_for(address)).get("grpc.service_config")
    balanced = config is not None and json.loads(str(config)) == {
        "loadBalancingConfig": [{"round_robin": {}}]
    }
    assert balanced is is_name


def test_a_channel_with_a_connection_of_its_own_shares_none() -> None:
    assert "grpc.use_local_subchannel_pool" not in dict(options_for("127.0.0.1:1"))
    assert dict(options_for("127.0.0.1:1", own_connection=True))["grpc.use_local_subchannel_pool"]
