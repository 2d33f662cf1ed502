"""Identity conversion (fact sheet 3.9). A corp's world knows no other corp: what upstream corps are told of the
companies below them is told of the corp itself."""

from __future__ import annotations

import re

from simulator.platform import fields
from simulator.platform.api.contacts import check_customer
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.unionids import Unionids

API = Api()

_OF_CORP, _OF_PROVIDER = 0, 1
_UNIONID = re.compile(r"o[0-9A-Za-z_-]{5,63}")


@API.post("externalcontact/unionid_to_external_userid")
def unionid_to_external_userid(call: Call) -> Answer:
    """The customer of a unionid; 84061 for somebody who is none, 845001 for an openid of another entity."""
    unionid, openid = _signs(call)
    customer_id = _customer(call, unionid)
    if not customer_id:
        raise ApiError(84061)
    _check_openid(call, customer_id, openid, _OF_CORP, 845001)
    return {"external_userid": customer_id}


@API.post("idconvert/unionid_to_external_userid")
def convert_unionid(call: Call) -> Answer:
    """The customer of a unionid, or a pending_id, good for 90 days, for somebody who is none.

    ``subject_type`` says whose official account the openid is of: 0 the corp's, 1 the provider's; of somebody else's:
    610015. 100,000 calls an hour, 480,000 a day, 7.5 million in 30 days.
    """
    converted = call.corp.of(Unionids)
    unionid, openid = _signs(call)
    subject = fields.whole(call.body, "subject_type", default=_OF_CORP, least=_OF_CORP, most=_OF_PROVIDER)
    converted.count("idconvert", converted.rules.idconvert, call.clock_s)
    met = converted.customer(unionid)
    if met:
        _check_openid(call, met, openid, subject, 610015)
    customer_id = _customer(call, unionid)
    if customer_id:
        return {"external_userid": customer_id}
    return {"pending_id": converted.pending_id(unionid, call.now_s)}


@API.post("service/externalcontact/unionid_to_external_userid_3rd", external_userid_info=[])
def convert_for_provider(call: Call) -> Answer:
    """For a service provider's apps (rule ``identity.provider_agents``; others 48002): the customer by corp."""
    converted = call.corp.of(Unionids)
    if call.app.agent_id not in converted.rules.provider_agents:
        raise ApiError(48002)
    unionid, openid = _signs(call)
    converted.count("third_party", converted.rules.third_party, call.clock_s)
    return _by_corp(call, unionid, openid, _OF_PROVIDER)


@API.post("corpgroup/unionid_to_external_userid", external_userid_info=[])
def convert_for_upstream(call: Call) -> Answer:
    """The customer by corp, for an upstream corp; ``corpid`` asks for one corp only."""
    unionid, openid = _signs(call)
    return _by_corp(call, unionid, openid, _OF_CORP)


@API.post("corpgroup/unionid_to_pending_id")
def unionid_to_pending_id(call: Call) -> Answer:
    """What stands for a person whether or not they are a customer: the same as for their external_userid."""
    unionid, openid = _signs(call)
    converted = call.corp.of(Unionids)
    met = converted.customer(unionid)
    if met:
        _check_openid(call, met, openid, _OF_CORP, 610015)
    return {"pending_id": converted.pending_id(unionid, call.now_s)}


@API.post("corpgroup/batch/external_userid_to_pending_id", result=[])
def external_userid_to_pending_id(call: Call) -> Answer:
    """Pending ids of up to 100 customers; who is no customer is left out. One unknown id: 40096."""
    converted = call.corp.of(Unionids)
    asked = fields.texts(call.body, "external_userid", required=True, missing=41035, most=converted.rules.batch)
    result = []
    for customer_id in asked:
        check_customer(call, customer_id)
        if call.corp.relations.followers_of(customer_id):
            # Who uses WeCom themselves has no unionid, and is known by the id alone.
            person = call.corp.people.customer(customer_id).unionid or customer_id
            result.append({"external_userid": customer_id, "pending_id": converted.pending_id(person, call.now_s)})
    return {"result": result}


def _signs(call: Call) -> tuple[str, str]:
    """unionid and openid; 610014 for a unionid that cannot be one."""
    unionid = fields.text(call.body, "unionid", required=True)
    openid = fields.text(call.body, "openid", required=True)
    if not _UNIONID.fullmatch(unionid):
        raise ApiError(610014)
    return unionid, openid


def _customer(call: Call, unionid: str) -> str:
    """The customer of a unionid; empty for somebody whom no staff member has."""
    customer_id = call.corp.of(Unionids).customer(unionid)
    return customer_id if customer_id and call.corp.relations.followers_of(customer_id) else ""


def _check_openid(call: Call, customer_id: str, openid: str, subject: int, errcode: int) -> None:
    rules = call.corp.of(Unionids).rules
    appids = rules.provider_appids if subject == _OF_PROVIDER else rules.appids
    if all(openid != call.corp.people.openid(customer_id, appid) for appid in appids):
        raise ApiError(errcode)


def _by_corp(call: Call, unionid: str, openid: str, subject: int) -> Answer:
    corp_id = fields.text(call.body, "corpid")
    customer_id = _customer(call, unionid)
    if customer_id:
        _check_openid(call, customer_id, openid, subject, 610015)
    if not customer_id or corp_id not in ("", call.corp.corp_id):
        return {"external_userid_info": []}
    return {"external_userid_info": [{"corpid": call.corp.corp_id, "external_userid": customer_id}]}
