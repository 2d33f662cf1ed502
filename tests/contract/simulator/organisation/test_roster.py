"""The address book's events, in their shape since 2022-08-15: ids and departments, nothing personal."""

import pytest

HEAD = {"ToUserName", "FromUserName", "CreateTime", "MsgType", "Event", "ChangeType", "agent"}


def body_of(event):
    return {name: value for name, value in event.items() if name not in HEAD}


@pytest.mark.covers("event:change_contact/create_user")
async def test_joining_is_told_with_id_and_departments_only(org):
    """2.7: create_user carries UserID and Department."""
    assert org.roster().join("new1", "张三", org.now_s, departments=(2, 3))
    (event,) = org.events("change_contact/create_user")
    assert body_of(event) == {"UserID": "new1", "Department": "2,3"}
    assert (event["FromUserName"], event["CreateTime"]) == ("sys", str(org.now_s))
    assert "new1" in (await org.wecom.get("externalcontact/get_follow_user_list"))["follow_user"]
    assert not org.roster().join("new1", "李四", org.now_s)
    assert not org.roster().join("new2", "李四", org.now_s, departments=(99,))


@pytest.mark.covers("event:change_contact/delete_user")
async def test_leaving_is_told_and_the_customers_stay_readable(org):
    """2.7: delete_user carries UserID; the relations of who left can be read until they are assigned."""
    org.friends("s1", "wmC1")
    org.told.clear()
    assert org.roster().leave("s1", org.now_s)
    (event,) = org.told
    assert body_of(event) == {"UserID": "s1"}
    assert org.corp.people.staff["s1"].left_s == org.now_s
    assert "s1" not in (await org.wecom.get("externalcontact/get_follow_user_list"))["follow_user"]
    answer = await org.wecom.get("externalcontact/get", external_userid="wmC1")
    assert [f["userid"] for f in answer["follow_user"]] == ["s1"]
    assert not org.roster().leave("s1", org.now_s)


@pytest.mark.covers("event:change_contact/update_user")
async def test_only_departments_and_ids_of_members_are_told(org):
    """2.7: update_user fires on changes of department and UserID, no longer on those of the name."""
    roster = org.roster()
    assert roster.rename("s4", "王五")
    assert roster.move("s4", (3,), org.now_s)
    assert not roster.move("s4", (3,), org.now_s)
    assert not roster.change_userid("s4", "wang", org.now_s)  # has worked under it
    assert roster.join("auto1", "赵六", org.now_s, departments=(2,), active=False)
    assert roster.change_userid("auto1", "zhao", org.now_s)
    moved, _, renamed = org.told
    assert body_of(moved) == {"UserID": "s4", "Department": "3"}
    assert body_of(renamed) == {"UserID": "auto1", "NewUserID": "zhao", "Department": "2"}
    assert (org.corp.people.staff["s4"].name, org.corp.people.staff["zhao"].name) == ("王五", "赵六")
    assert "auto1" not in org.corp.people.staff


@pytest.mark.covers(
    "event:change_contact/create_party", "event:change_contact/update_party", "event:change_contact/delete_party"
)
async def test_departments(org):
    """2.7: create_party has Id and ParentId only; update_party fires on ParentId alone; delete_party has the Id."""
    roster = org.roster()
    assert roster.found_department(9, "新店", 1, org.now_s)
    assert roster.rename_department(9, "旧店")
    assert roster.move_department(9, 2, org.now_s)
    assert not roster.move_department(2, 9, org.now_s)
    assert not roster.close_department(2, org.now_s)
    assert roster.close_department(9, org.now_s)
    assert [(e["ChangeType"], body_of(e)) for e in org.told] == [
        ("create_party", {"Id": "9", "ParentId": "1"}),
        ("update_party", {"Id": "9", "ParentId": "2"}),
        ("delete_party", {"Id": "9"}),
    ]


@pytest.mark.covers("event:change_contact/update_tag")
async def test_labels_of_the_address_book(org):
    """2.7: update_tag tells who and which departments came and went."""
    roster = org.roster()
    assert roster.label(1, org.now_s, add=["s1", "s2"], add_departments=[2])
    assert roster.label(1, org.now_s, add=["s2", "s3"], remove=["s1", "s4"], remove_departments=[2, 4])
    assert not roster.label(1, org.now_s, add=["s3"])
    assert [body_of(e) for e in org.told] == [
        {"TagId": "1", "AddUserItems": "s1,s2", "AddPartyItems": "2"},
        {"TagId": "1", "AddUserItems": "s3", "DelUserItems": "s1", "DelPartyItems": "2"},
    ]
    roster.leave("s2", org.now_s)
    assert roster.labels[1].staff == {"s3"}
