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


@pytest.mark.parametrize(
    ("count", "error"), [(0, ValueError), (-1, ValueError), ("ten", TypeError), (None, TypeError), (2.0, TypeError)]
)
def test_numbers_of_classes_that_cannot_be(count, error):
    with pytest.raises(error, match=f"num_classes={count!r}: expected"):
        models.create("resnet18", num_classes=count)


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
