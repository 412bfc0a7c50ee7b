"""Sources: what the user named, a folder, a table or arrays -> paths and labels. One module per format."""

from __future__ import annotations

from cvcoteach.data.sources.hugging_face import is_dataset as is_dataset
from cvcoteach.data.sources.hugging_face import read_dataset as read_dataset
from cvcoteach.data.sources.npz import check_images as check_images
from cvcoteach.data.sources.npz import open_npz as open_npz
from cvcoteach.data.sources.registry import FORMATS as FORMATS
from cvcoteach.data.sources.registry import as_far_as_taken as as_far_as_taken
from cvcoteach.data.sources.registry import columns_of as columns_of
from cvcoteach.data.sources.registry import has_labels as has_labels
from cvcoteach.data.sources.registry import read_source as read_source
from cvcoteach.data.sources.registry import read_unlabelled as read_unlabelled
from cvcoteach.data.sources.remote import at_hand as at_hand
from cvcoteach.data.sources.remote import is_address as is_address
from cvcoteach.data.sources.source import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from cvcoteach.data.sources.source import Choices as Choices
from cvcoteach.data.sources.source import Source as Source
from cvcoteach.data.sources.source import spread as spread
from cvcoteach.data.sources.source import unlabelled as unlabelled
from cvcoteach.data.sources.text_table import separator_of as separator_of
