"""More ways to ask for an edit, for training only: the vocabulary that CLIP's text tower brings and ours lacks.

The published model's text encoder has read 400 million captions before it sees an instruction; it knows that specs are
glasses. Ours starts from nothing, so the words have to come from somewhere: from this list. It widens the fourteen
training phrasings of a kind (s2flib.synthfaces.phrases) by synonyms and everyday sentences. The held-out phrasings
stay out: a test asserts that no sentence here is one of them, nor shares a run of four words with one. But whoever
wrote this list had seen them, so single words overlap on purpose ("specs", "shades", "whiskers"): what the held-out
test then measures is new sentences, not new words. The model card says so, too.
"""

from __future__ import annotations

import functools
import re

import numpy as np

from s2flib.stylize.pairs import Change, Wish
from s2flib.synthfaces import phrases

MORE: dict[str, tuple[str, ...]] = {
    "hair_color": (
        "{x}-haired", "make them {x}-haired", "a {x}-haired person", "hair: {x}", "the hair was {x}",
        "their hair is {x}", "she had {x} hair", "he had {x} hair", "paint the hair {x}", "tint the hair {x}",
        "give the hairdo the color {x}", "the hair color is {x}", "a {x} shade of hair", "recolor the hair to {x}",
        "I think the hair was {x}", "let the hair be {x}", "repaint the hair {x}", "bleach or dye it: {x} hair"),
    "hair_style": (
        "hairstyle: {x}", "haircut: {x}", "they had {x}", "she had {x}", "he had {x}", "I remember {x}", "{x}",
        "the hairdresser gave them {x}", "go to the hairdresser, then {x}", "cut the hair to {x}", "wearing {x}",
        "picture this face with {x}", "the haircut looked like {x}", "replace the hairstyle by {x}", "how about {x}",
        "try {x}", "the hair is styled as {x}", "let us see {x}", "show {x} instead of this hair"),
    "eye_color": (
        "{x}-eyed", "make them {x}-eyed", "a {x}-eyed person", "eyes: {x}", "the eyes were {x}", "their eyes are {x}",
        "she had {x} eyes", "he had {x} eyes", "{x} irises", "make the irises {x}", "iris color {x}",
        "change the shade of the iris to {x}", "I think the eyes were {x}", "look at me with eyes of {x}",
        "the color of the eyes is {x}", "I believe those eyes are {x}"),
    "glasses": (
        "glasses", "spectacles", "specs", "add specs", "put spectacles on the nose", "wears spectacles",
        "they had glasses on", "she was wearing glasses", "he was wearing glasses", "glasses, please",
        "give them reading glasses", "glasses to read with", "a pair of specs", "bespectacled",
        "make them bespectacled", "add frames to the face", "this person needs glasses", "cannot read without glasses",
        "spectacles, please", "show them in eyewear", "they need glasses"),
    "no_glasses": (
        "no specs", "no spectacles", "remove the specs", "they forgot their glasses at home",
        "left the glasses at home",
        "without eyewear", "remove the eyewear", "take off the frames", "remove the frames from the face",
        "free the face from glasses", "contact lenses instead of glasses", "they wear contact lenses, no glasses",
        "wearing lenses instead", "drop the glasses", "lose the glasses", "lose the spectacles", "specs off",
        "glasses off", "put the glasses away", "nothing in front of the eyes", "free eyes, no frames"),
    "sunglasses": (
        "sunglasses", "shades", "add shades", "wears shades", "shades on", "dark shades", "dark lenses",
        "tinted glasses", "add tinted glasses", "tinted lenses", "cover both eyes with sunglasses",
        "protection from the sun", "it is sunny, so sunglasses", "too much sun in the eyes, give them shades",
        "cool in sunglasses", "look like a star with dark glasses", "wearing dark glasses",
        "they were wearing sunglasses", "hide the eyes"),
    "beard": (
        "{x}", "he had {x}", "he wears {x}", "wearing {x}", "there was {x}", "picture this man with {x}",
        "his facial hair: {x}", "facial hair: {x}", "the barber gave him {x}", "grow {x}", "I think he had {x}",
        "I remember {x}", "the man has {x}", "let us see {x}", "show him with {x}",
        "he has not been to the barber: {x}",
        "give this man {x}", "suggest {x}", "he grew {x} in a while"),
    "no_beard": (
        "clean-shaven", "he was clean-shaven", "freshly shaved", "shaved", "use a razor", "give him a razor",
        "razor please", "shave the cheeks", "smooth cheeks", "a smooth chin", "a bare chin", "bare cheeks",
        "let the chin be bare", "no facial hair", "no whiskers", "remove the whiskers", "cut off the whiskers",
        "lose the beard", "lose the facial hair", "get rid of the beard", "beard off", "he has shaved"),
    "makeup": (
        "make-up", "makeup", "add makeup", "wearing make-up", "she wore make-up", "she was wearing make-up",
        "made up", "make her all dressed up and made up", "ready for a party", "she is going out tonight, make her up",
        "dressed for the opera", "at the beautician", "send her to the beautician", "back from the beauty salon",
        "paint the lips", "paint the eyelids", "lips and lids painted", "lipstick", "add lipstick", "eye shadow",
        "use cosmetics", "add cosmetics", "put lipstick and rouge on"),
    "no_makeup": (
        "no makeup", "remove makeup", "no lipstick", "take off the lipstick", "lipstick off", "without lipstick",
        "no cosmetics", "remove the cosmetics", "without cosmetics", "lose the make-up", "lose the lipstick",
        "natural", "natural look", "she looks natural", "nature only", "as natural as she was born", "just woken up",
        "she just got out of bed", "she got up a minute ago", "early in the morning", "make-up off",
        "off with the make-up", "wash her face", "clean face"),
    "expression": (
        "{x}", "please {x}", "{x} now", "they should {x}", "tell them to {x}", "ask them to {x}", "they {x} here",
        "watch them {x}", "see them {x}", "catch them as they {x}", "a moment when they {x}", "I saw them {x}",
        "the photographer says: {x}", "make the mouth and eyes {x}", "let the face {x}", "I want them to {x}",
        "in this photo they {x}", "would they {x}", "face: {x}"),
    "age": (
        "{x}", "look {x}", "they were {x}", "they should look {x}", "this face {x}", "{x} person", "a {x} person",
        "a {x} version", "make the face {x}", "show them as a {x} person", "suppose they were {x}", "I guess {x}",
        "the years: {x}", "change the years, {x}", "imagine them {x}", "age: {x}", "they seemed {x}",
        "the person was {x}"),
    "skin_tone": (
        "skin: {x}", "the skin was {x}", "their skin is {x}", "{x} complexion", "make the complexion {x}",
        "a {x} skin tone", "a {x} tone of the skin", "their complexion is {x}", "the face has a {x} tone",
        "shift the skin to be {x}", "paint the face {x}", "repaint the skin {x}", "I remember the skin being {x}",
        "the complexion seemed {x}", "they had {x} skin", "a face with {x} skin", "make the face {x}"),
    "hat": (
        "{x}", "wearing {x}", "they wore {x}", "there was {x}", "I saw {x}", "cover the hair with {x}",
        "cover it with {x}", "head covered with {x}", "on the head: {x}", "on top of the head, {x}", "add {x} on top",
        "it is cold, give them {x}", "so cold that they wear {x}", "dress the head in {x}", "they had {x} on",
        "put {x} on top", "{x} on top of the hair"),
    "no_hat": (
        "hat off", "take the hat away", "put the hat away", "without headgear", "remove the headgear",
        "no headgear", "no headwear", "lose the hat", "lose the headwear", "uncover the hair", "uncover the forehead",
        "bare head", "the head is bare", "tip the hat", "take the cap off", "take the beanie off", "remove the cap",
        "show what the hat hides", "let us see the hair", "nothing on the head", "hat away"),
    "background": (
        "background", "other background", "the background should change", "another place", "another location",
        "a new location", "different location", "elsewhere", "take them elsewhere", "move the picture elsewhere",
        "change the place", "not this place", "keep the face, change the place", "keep the person, change the rest",
        "the same face somewhere else", "the same person in another scene", "redecorate the room",
        "another scene behind them", "change the scene behind them", "new scenery", "other surroundings"),
}  # fmt: skip

# the same value in other words; the first stands in the pairs' instructions
SYNONYMS: dict[str, tuple[str, ...]] = {
    "blond": ("blonde", "golden"), "platinum blond": ("platinum", "platinum blonde", "very light blond"),
    "grey": ("gray",), "red": ("ginger",), "auburn": ("reddish brown",), "dark brown": ("deep brown",),
    "a bald head": ("no hair", "baldness"), "a buzz cut": ("very short hair", "a crew cut"),
    "a short fringe": ("a fringe",), "a moustache": ("a mustache",), "a full beard": ("a big beard", "a beard"),
    "stubble": ("a stubble", "a three-day beard"), "smile": ("look happy",), "look surprised": ("be surprised",),
    "older": ("twenty years older", "much older"), "younger": ("a little younger",),
    "a beanie": ("a woollen hat", "a knitted cap"), "a baseball cap": ("a cap",),
    "a brimmed hat": ("a hat with a brim",),
    "curly hair": ("curls",), "long straight hair": ("straight long hair",),
}  # fmt: skip

# verbs that only say "change": one stands for the other, or a verb used for one kind alone would come to mean that kind
# ("swap the background" once made "swap the hair shade" change the background)
_VERBS = ("change", "edit", "replace", "swap", "switch", "turn")
_BEFORE = ("please", "now", "I think", "could you", "can you", "the witness says", "the witness remembers:", "then",
           "also", "well,", "we want to", "perhaps", "as I recall,", "if I remember well,")
_AFTER = ("please", ", please", "in this picture", "now", "if possible", ", I believe", "instead", "this time", "!",
          ".")


def templates(kind: str) -> tuple[str, ...]:
    """Every phrasing that may be trained on."""
    return (*phrases.templates(kind), *MORE[kind])


def phrase(change: Change, rng: np.random.Generator) -> str:
    """One change in random training words."""
    options = templates(change.kind)
    words = change.words
    if rng.random() < 0.3:
        others = SYNONYMS.get(words, ())
        words = others[rng.integers(len(others))] if others else words
    text = options[rng.integers(len(options))].format(x=words)
    verb, _, rest = text.partition(" ")
    return f"{_VERBS[rng.integers(len(_VERBS))]} {rest}" if verb in _VERBS else text


def sentence(wish: Wish, rng: np.random.Generator) -> str:
    """An instruction for a wish: its changes in either order, with a word of courtesy now and then."""
    parts = [phrase(change, rng) for change in wish]
    rng.shuffle(parts)
    text = ("and", ",", "and also", "with")[rng.choice(4, p=(0.7, 0.1, 0.1, 0.1))].join(f" {p} " for p in parts)
    if rng.random() < 0.25:
        text = f"{_BEFORE[rng.integers(len(_BEFORE))]} {text}"
    if rng.random() < 0.15:
        text = f"{text} {_AFTER[rng.integers(len(_AFTER))]}"
    return " ".join(text.split())


@functools.cache
def vocabulary() -> frozenset[str]:
    """Every word (letters only, lower case) that a training instruction can hold."""
    from s2flib.training.editor_text import values

    texts = [t.format(x="") for kind in MORE for t in templates(kind)]
    texts += [*_BEFORE, *_AFTER, "and also with", *values(), *SYNONYMS, *(w for ws in SYNONYMS.values() for w in ws)]
    return frozenset(re.findall(r"[^\W\d_]+", " ".join(texts).lower()))
