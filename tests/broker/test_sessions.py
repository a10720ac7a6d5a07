"""When the sessions of killed brokers count as over, from the words of the controllers' logs."""

from __future__ import annotations

from pipeline.broker.launch import are_over

_PREFIX = "2026-01-01 INFO ClusterControlManager - [QuorumController id=1] "
REGISTERED = (
    _PREFIX + "Replayed initial RegisterBrokerRecord for broker 1: RegisterBrokerRecord(brokerId=1, "
    "endPoints=[BrokerEndpoint(name='CLIENT')], rack=null, fenced=true, inControlledShutdown=false)\n"
)
_CHANGE = _PREFIX + (
    "Replayed BrokerRegistrationChangeRecord modifying the registration for broker 1: "
    "BrokerRegistrationChangeRecord(brokerId=1, brokerEpoch=11, fenced={}, inControlledShutdown=0, logDirs=[])\n"
)
UNFENCED, OTHER, FENCED = _CHANGE.format(-1), _CHANGE.format(0), _CHANGE.format(1)
ACTIVE = "2026-01-01 WARN QuorumController - [QuorumController id=1] Performing controller activation.\n"


def test_controller_that_is_not_active_knows_nothing_yet() -> None:
    """Its log may stop between a broker's registration and its start of service."""
    assert not are_over([""])
    assert not are_over([REGISTERED])
    assert not are_over([REGISTERED + UNFENCED + FENCED])


def test_broker_is_alive_until_it_is_fenced() -> None:
    """Other changes of a registration say nothing about that."""
    alive = REGISTERED + UNFENCED + OTHER + ACTIVE
    assert not are_over([alive])
    assert not are_over([alive + OTHER])
    assert are_over([alive + FENCED])


def test_broker_that_never_served_has_no_session_to_end() -> None:
    """So has a cluster without any broker."""
    assert are_over([REGISTERED + ACTIVE])
    assert are_over([REGISTERED + UNFENCED + FENCED + ACTIVE])
    assert are_over([ACTIVE])


def test_others_must_have_the_decision_too() -> None:
    """One controller's word alone may be lost with it."""
    leader = REGISTERED + UNFENCED + ACTIVE + FENCED
    assert not are_over([leader, REGISTERED + UNFENCED])
    assert are_over([leader, REGISTERED + UNFENCED + FENCED])
