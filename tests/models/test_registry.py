import pytest

from pycv import models
from pycv.models import registry


def test_names_and_patterns():
    assert models.list_models("lenet*") == ["lenet5", "lenet5_original"]
    assert set(models.list_models("lenet*")) <= set(models.list_models())
    assert models.list_models("no such*") == []
    assert models.list_models("LENET5") == []


def test_create_passes_arguments():
    assert models.create("lenet5", num_classes=26).output.out_features == 26
    with pytest.raises(TypeError, match="classes"):
        models.create("lenet5", classes=26)


def test_unknown_name_is_named_with_near_ones():
    with pytest.raises(ValueError, match=r"name='lenet_5': no such model; did you mean lenet5"):
        models.create("lenet_5")


def test_a_name_is_given_once():
    def lenet5():
        raise AssertionError("never built")

    with pytest.raises(ValueError, match="'lenet5' is registered already"):
        registry.register(lenet5)


def test_image_shapes():
    assert models.image_shape("lenet5") == (1, 32, 32)
    assert models.image_shape("resnet18") == (3, 224, 224)
    assert models.image_shape("inception_v3") == (3, 299, 299)
    with pytest.raises(ValueError, match="name='lenet_5'"):
        models.image_shape("lenet_5")
