"""Addresses that webhooks may reach: public ones and allowed networks, in every notation, from one DNS query."""

import asyncio
import ipaddress

import httpcore2
import pytest
from receivers import Receiver

from api.webhooks.addresses import AddressNotAllowed, CheckedBackend, is_allowed, literal_address

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
NOT_PUBLIC = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.2.1",
    "192.168.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::169.254.169.254",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::1",
    "2002:a9fe:a9fe::",
    "2001:0:4136:e378:8000:63bf:5601:5601",
    "2001:db8::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "4000::1",
]
METADATA = ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "0xa9.0xfe.0xa9.0xfe", "169.254.43518", "169.16689662"]
METADATA += ["169.254.169.254", "[::ffff:169.254.169.254]", "[0:0:0:0:0:ffff:a9fe:a9fe]"]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_not_allowed(address):
    assert not is_allowed(address, [])


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_a_public_address_is_allowed(address):
    assert is_allowed(address, [])


def test_an_operator_allows_networks():
    networks = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8")]
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1"):
        assert is_allowed(address, networks)
    assert not is_allowed("10.2.0.1", networks)


@pytest.mark.parametrize("host", METADATA)
def test_every_notation_of_an_address_is_recognised(host):
    address = literal_address(host)
    assert address is not None
    assert not is_allowed(address, [])


def test_a_name_is_no_literal_address():
    assert literal_address("hooks.example") is None
    assert literal_address("localhost") is None
    assert literal_address("x" * 300) is None


def connect(addresses, port, allowed=(LOOPBACK,)):
    """Connect to a host that resolves to the addresses; return the address that the connection has."""
    queries = []

    async def resolve(host, port):
        queries.append(host)
        return addresses

    async def run():
        stream = await CheckedBackend(allowed, resolve).connect_tcp("hooks.example", port)
        peer = stream.get_extra_info("server_addr")[0]
        await stream.aclose()
        return peer

    peer = asyncio.run(run())
    assert queries == ["hooks.example"], "one DNS query, so that a second answer cannot differ"
    return peer


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_name_that_resolves_to_such_an_address_is_refused(address):
    with pytest.raises(AddressNotAllowed) as error:
        connect([address], 80, allowed=())
    assert address not in str(error.value), "the answer of an internal DNS server stays internal"


def test_one_address_that_is_not_allowed_refuses_the_host():
    with Receiver() as receiver, pytest.raises(AddressNotAllowed):
        connect(["127.0.0.1", "169.254.169.254"], receiver.port)
    assert receiver.requests() == []


def test_the_connection_goes_to_the_address_that_was_checked():
    with Receiver() as receiver:
        assert connect(["127.0.0.1"], receiver.port) == "127.0.0.1"


def test_a_second_address_is_tried_if_the_first_one_refuses():
    with Receiver() as receiver:
        assert connect(["127.0.0.2", "127.0.0.1"], receiver.port) == "127.0.0.1"


@pytest.mark.parametrize("addresses", [[], ["127.0.0.1"]])
def test_a_host_without_a_usable_address_is_a_connection_error(addresses):
    with Receiver() as receiver:
        port = receiver.port
    with pytest.raises(httpcore2.ConnectError):
        connect(addresses, port)
