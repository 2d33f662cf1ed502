"""The merchants file: made once, read ever after, and never quoted in an error."""

import stat

import pytest
import yaml

from simulator.pay import signing
from simulator.pay.merchant import MerchantsError, open_merchants

CORPS = {"ww1": "http://receiver/pay/ww1", "ww2": ""}


def test_the_files_are_made_once_and_keep_their_keys(tmp_path):
    path = tmp_path / "pay" / "merchants.yaml"
    keys, merchants = open_merchants(path, seed=7, corps=CORPS, appids=["wx1", "wx2"])
    again_keys, again = open_merchants(path, seed=8, corps={})
    assert again == merchants
    assert again_keys.certificate_pem != ""
    assert (again_keys.public_key_id, again_keys.certificate_serial) == (keys.public_key_id, keys.certificate_serial)
    numbers = keys.public_key.private_numbers()
    assert again_keys.public_key.private_numbers() == numbers
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    shared = yaml.safe_load(path.read_text())["merchants"]
    assert [entry["corp_id"] for entry in shared] == ["ww1", "ww2"]
    assert len(shared[0]["apiv3_key"]) == 32
    assert "certificate_key" not in path.read_text()
    assert signing.public_pem(keys.public_key.public_key()) == shared[0]["public_key"]
    assert shared[0]["mchid"] not in repr(merchants[1])
    assert shared[0]["apiv3_key"] not in repr(merchants[0])


def test_numbers_follow_the_seed_and_keys_do_not(tmp_path):
    _, one = open_merchants(tmp_path / "a.yaml", seed=7, corps=CORPS)
    _, two = open_merchants(tmp_path / "b.yaml", seed=7, corps=CORPS)
    _, other = open_merchants(tmp_path / "c.yaml", seed=8, corps=CORPS)
    assert [(m.mchid, m.serial_no, m.apiv3_key) for m in one] == [(m.mchid, m.serial_no, m.apiv3_key) for m in two]
    assert one[0].private_key != two[0].private_key
    assert one[0].mchid != other[0].mchid
    assert len(one[0].serial_no) == 40
    assert one[0].mchid != one[1].mchid


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "{",
        lambda text: "merchants: 5",
        lambda text: text.replace("mchid:", "number:"),
        lambda text: text.replace("apiv3_key: ", "apiv3_key: short"),
    ],
)
def test_a_damaged_file_is_named_and_its_secrets_are_not(tmp_path, damage):
    path = tmp_path / "merchants.yaml"
    _, merchants = open_merchants(path, seed=7, corps=CORPS)
    path.write_text(damage(path.read_text()))
    with pytest.raises(MerchantsError, match=r"merchants\.yaml") as raised:
        open_merchants(path, seed=7, corps=CORPS)
    assert merchants[0].apiv3_key not in str(raised.value)
    assert "PRIVATE" not in str(raised.value)


def test_an_authorization_header_in_any_order():
    header = 'WECHATPAY2-SHA256-RSA2048 signature="s+/=", serial_no="5A", timestamp="1",nonce_str="n",mchid="19"'
    given = signing.parse_authorization(header)
    assert (given.mchid, given.nonce, given.timestamp, given.serial, given.signature) == ("19", "n", "1", "5A", "s+/=")
    for wrong in ("", "Basic x", header[:-1], header.replace("mchid", "mch"), header.replace('"19"', "19")):
        with pytest.raises(signing.BadAuthorization):
            signing.parse_authorization(wrong)
