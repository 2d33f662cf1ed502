"""The allow-list: what may be called at all, and what may be called twice."""

from siyu.wecom.endpoints import ENDPOINTS, GETTOKEN


def test_a_read_can_be_repeated() -> None:
    assert all(endpoint.repeat_safe for endpoint in ENDPOINTS.values() if endpoint.effect == "read")


def test_what_makes_something_new_cannot() -> None:
    making = {
        "externalcontact/add_msg_template",
        "externalcontact/add_moment_task",
        "externalcontact/remind_groupmsg_send",
        "externalcontact/transfer_customer",
        "message/send",
    }
    assert not any(ENDPOINTS[path].repeat_safe for path in making)


def test_no_action_can_ask_for_a_token_or_for_what_wecom_does_not_offer() -> None:
    assert GETTOKEN not in ENDPOINTS
    assert not any("del_external_contact" in path or "delete" in path or "add_friend" in path for path in ENDPOINTS)


def test_the_key_is_the_path() -> None:
    assert all(path == endpoint.path for path, endpoint in ENDPOINTS.items())
