"""The saved folder, its model card, and its way to the Hub."""

from fastddpm.hub.card import write_card
from fastddpm.hub.folder import finish_folder, stage
from fastddpm.hub.images import holds_images, push_images
from fastddpm.hub.upload import RECORDS, Pushed, check_can_push, push
