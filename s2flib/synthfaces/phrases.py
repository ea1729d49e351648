"""Instructions in words: at least fourteen phrasings a kind of edit, the last ones held out from training.

``{x}`` is the value in words ("blond", "a full beard", "fifty"). Held-out templates use words and word orders
the training ones do not, so that a model is tested on understanding rather than on recall.
"""

from __future__ import annotations

HELD_OUT = 4      # the last templates of each kind

TEMPLATES: dict[str, tuple[str, ...]] = {
    "hair_color": (
        "make the hair {x}", "dye the hair {x}", "change the hair color to {x}", "give this person {x} hair",
        "turn the hair {x}", "color their hair {x}", "the hair should be {x}", "{x} hair", "with {x} hair",
        "what would they look like with {x} hair?", "add {x} hair",
        "imagine a {x}-haired version of this person", "repaint the hairdo in {x}", "I remember the hair being {x}",
        "swap the hair shade for {x}"),
    "hair_style": (
        "give this person {x}", "change the hairstyle to {x}", "make the haircut {x}", "with {x}",
        "the hair should be {x}", "restyle the hair: {x}", "this person now has {x}", "switch to {x}",
        "let them wear {x}", "turn the hairstyle into {x}", "show the face with {x}",
        "send them to the hairdresser for {x}", "as far as I recall the haircut was {x}", "picture them wearing {x}",
        "try {x} instead"),
    "eye_color": (
        "make the eyes {x}", "change the eye color to {x}", "give this person {x} eyes", "turn the eyes {x}",
        "the eyes should be {x}", "{x} eyes", "with {x} eyes", "recolor the eyes {x}", "color the irises {x}",
        "what if the eyes were {x}?", "put in {x} contact lenses",
        "the witness says the eyes are {x}", "swap the iris shade for {x}", "a {x}-eyed version, please",
        "let them look at us with {x} eyes"),
    "glasses": (
        "add glasses", "put glasses on this person", "give them glasses", "make them wear glasses", "with glasses",
        "the person should wear glasses", "add a pair of glasses", "put on spectacles", "add eyeglasses",
        "now with glasses on", "place glasses on the face",
        "he or she was wearing specs", "they need something to read with", "frame the eyes with a pair of spectacles",
        "picture them bespectacled"),
    "no_glasses": (
        "remove the glasses", "take off the glasses", "no glasses", "without glasses", "delete the glasses",
        "make them not wear glasses", "get rid of the glasses", "the person should not wear glasses",
        "take the eyeglasses away", "show the face without spectacles", "erase the glasses",
        "they left their specs at home", "switch to contact lenses", "free the eyes from the frames",
        "lose the eyewear"),
    "sunglasses": (
        "add sunglasses", "put sunglasses on this person", "give them sunglasses", "make them wear sunglasses",
        "with sunglasses", "the person should wear sunglasses", "add a pair of sunglasses", "put on dark glasses",
        "hide the eyes behind sunglasses", "now with sunglasses on", "add dark glasses",
        "shield their eyes from the sun", "they had shades on", "cover the eyes with tinted lenses",
        "make them look like a film star in shades"),
    "beard": (
        "add {x}", "give him {x}", "make him grow {x}", "with {x}", "he should have {x}", "change the beard to {x}",
        "put {x} on his face", "let him have {x}", "this man now has {x}", "draw {x}", "turn the facial hair into {x}",
        "it has been a while since he was like this: {x}", "picture him wearing {x}", "I believe there was {x}",
        "his barber suggests {x}"),
    "no_beard": (
        "shave him", "remove the beard", "make him clean-shaven", "no beard", "without a beard", "shave off the beard",
        "take the facial hair away", "delete the beard", "he should be clean-shaven", "give him a shave",
        "erase the facial hair",
        "hand him a razor", "show the bare chin", "his cheeks were smooth", "lose the whiskers"),
    "makeup": (
        "add make-up", "put make-up on her", "give her make-up", "make her wear make-up", "with make-up",
        "add lipstick and eye shadow", "she should wear make-up", "apply make-up", "do her make-up",
        "now with lipstick on", "make the lips red and the eyes darker",
        "get her ready for a gala", "she was all made up", "a visit to the beautician", "paint her lips and lids"),
    "no_makeup": (
        "remove the make-up", "take off her make-up", "no make-up", "without make-up", "show her natural face",
        "wipe off the make-up", "delete the make-up", "she should wear no make-up", "make her look natural",
        "bare-faced", "clean her face of make-up",
        "she has just got up", "as nature made her", "off with the lipstick", "lose the cosmetics"),
    "expression": (
        "make them {x}", "let this person {x}", "the person should {x}", "change the expression: {x}",
        "now they {x}", "have them {x}", "show them as they {x}", "make this face {x}", "they {x}",
        "turn the expression so that they {x}", "edit the mouth and eyes so that they {x}",
        "in this moment, watch them {x}", "the photographer asks them to {x}", "catch them while they {x}",
        "I would like to see them {x}"),
    "age": (
        "make them {x}", "make this person look {x}", "change the age: {x}", "the person should be {x}",
        "now {x}", "let them look {x}", "show them {x}", "this person, but {x}", "edit the face to be {x}",
        "turn them into a {x} person", "age the face: {x}",
        "how would they look if they were {x}?", "shift the years: {x}", "a {x} version of this face",
        "the witness guesses {x}"),
    "skin_tone": (
        "make the skin {x}", "change the skin tone: {x}", "give them {x} skin", "the skin should be {x}",
        "turn the skin {x}", "with {x} skin", "edit the complexion to be {x}", "this person has {x} skin",
        "let the skin look {x}", "{x} skin", "adjust the skin: {x}",
        "a {x} complexion, if I remember well", "shift the complexion, it was {x}", "repaint the face in a {x} tone",
        "their complexion seemed {x}"),
    "hat": (
        "add {x}", "put {x} on this person", "give them {x}", "make them wear {x}", "with {x}",
        "the person should wear {x}", "now with {x} on", "place {x} on the head", "let them wear {x}",
        "this person wears {x}", "put on {x}",
        "it was cold, so there was {x}", "cover the head with {x}", "top it off with {x}", "I saw {x} on the head"),
    "no_hat": (
        "remove the hat", "take off the hat", "no hat", "without a hat", "delete the hat", "bare-headed",
        "make them not wear a hat", "get rid of the hat", "the person should not wear a hat", "show the hair",
        "take the headwear away",
        "they tip their hat and put it away", "uncover the head", "lose the headgear",
        "let us see what is under the hat"),
    "background": (
        "change the background", "put them somewhere else", "use another background", "replace the background",
        "a different background", "move them to another place", "swap the background", "new background",
        "edit what is behind them", "show them in a different place", "change the scenery",
        "same face, another location", "redecorate the scene behind the head", "take this picture elsewhere",
        "keep the person, not the place"),
}


def templates(kind: str, held_out: bool = False) -> tuple[str, ...]:
    """The phrasings to train on, or the held-out ones."""
    return TEMPLATES[kind][-HELD_OUT:] if held_out else TEMPLATES[kind][:-HELD_OUT]


def instruction(kind: str, words: str, number: int, held_out: bool = False) -> str:
    """Phrasing ``number`` (any integer, taken round the list) of an edit."""
    options = templates(kind, held_out)
    return options[number % len(options)].format(x=words)
