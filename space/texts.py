"""Every sentence that a person reads on the page or in an error, in English."""

LICENCE = "Apache-2.0"

TITLE = "Which white blood cell is this?"
LEAD = "Give it a photograph of a stained blood smear. It names the white cell and shows where it looked."
PURPOSE = "For research and teaching, not for diagnosis."

PHOTO = "Photograph of a stained blood smear"
PLACEHOLDER = "Drop a photograph here,\nor click to choose one"
EXAMPLES = "Or try a drawing. These were drawn by a program; they are no photographs."

WELCOME = "What it can name"
WELCOME_HINT = "Best with one white cell, sharp and near the middle, taken through a 100x objective."

SUBTYPES = {
    "EOSINOPHIL": "Two lobes; coarse orange-red granules.",
    "LYMPHOCYTE": "Round dense nucleus; a thin rim of blue.",
    "MONOCYTE": "Large kidney-shaped nucleus; grey-blue cytoplasm.",
    "NEUTROPHIL": "Three to five lobes; fine pale granules.",
    "BASOPHIL": "Coarse blue-black granules over the nucleus.",
}

SURE = "{percent} sure"
LIKELIEST = "Likeliest: {name}, {percent}"
NO_SUBTYPE = "No white cell of these kinds"
# By the words in which the model gives its reason for "unidentified".
REASONS = {
    "low confidence": "It is not sure enough to name this cell.",
    "unlike the images learnt from": "This picture is unlike those that it learned from: trust none of the figures.",
}
DOUBTFUL = "Less than half: more likely some other cell than this one."
PROBABILITIES = "Probability of each subtype"
LOOKED = "Where it looked"
LOOKED_ALT = "The photograph in grey. Colour marks the places that spoke for: {name}."
SCALE = ("less", "more")
EXPLANATION = (
    "Brighter places spoke more for this subtype than for the others. The answer is computed from the same "
    "evidence, averaged over the whole picture."
)
EXPLANATION_EMPTY = "No single place spoke for this subtype more than for the others."

FOOTER_CHOICE = (
    "It always chooses from this list, even for a picture without a white blood cell. It learned from one laboratory's "
    "stain: on others' it is often wrong, and sure of it."
)
FOOTER_UNIDENTIFIED = (
    "Where it is not sure enough it says unidentified. Of the names that it gave to the validation images at most {risk} "
    "were wrong; with a stain or a camera it has not seen, expect more."
)
FOOTER_PRIVACY = "Nothing is kept: your picture is deleted within minutes and used for nothing else."
FOOTER_WEIGHTS = "Weights: {name}, sha256 {sha256}, {licence}."

API = (
    "Name the white blood cell in one image. Returns the verdict, which may be unidentified, and then the reason; the "
    "likeliest label, its score, the probability of every label, and which model answered. For research and teaching, not "
    "for diagnosis."
)

# What was done to a picture before the network saw it.
NOTE_TRANSPARENT = "The picture has transparent parts; they were laid on white."
NOTE_CMYK = "The picture is in printing colours (CMYK); its colours were converted to RGB and may be off."
NOTE_GREY = "The picture is grey. The network learned from coloured stains: trust this answer less."
NOTE_DEEP_GREY = "The picture has more than 8 bits of grey; its darkest to lightest values were spread over 8 bits."
NOTE_FRAMES = "The file holds {frames} pictures; the first one was used."

# What stops the answer: what came, what is expected, what to do.
NO_IMAGE = "No picture came. Choose one, paste one, or take one with the camera."
UNREADABLE = (
    "This file cannot be read as a picture. Send a JPEG, PNG, WebP, TIFF, BMP or GIF; for others, export a PNG first."
)
TRUNCATED = "This picture is damaged or cut short: its last part is missing. Copy or export it again."
TOO_LARGE = "This picture has more than {limit:.0f} million pixels. Crop it to the cell first."
TOO_HEAVY = "This picture's file is larger than {limit:.0f} MB. Crop it to the cell first, or save it as JPEG."
TOO_SMALL = (
    "This picture has {width}x{height} px; at least {limit}x{limit} px are needed. Send a larger crop of the cell."
)
NOT_FINITE = "This picture holds values that are not numbers (NaN or infinite). Export it again as an 8-bit PNG."

# For the person who starts the program.
RUNNING = "Running on {url} (stop with Ctrl+C)"
NO_FOLDER = "{model!r} is neither a folder on this machine nor a model's name on the Hub, such as {example!r}."
NO_CONFIG = (
    "The folder {model!r} holds no config.json: give the folder that train.py wrote, or a model's name on the Hub."
)
NO_REVISION = (
    "{model!r} brings code of its own, which runs here: read it, then name the commit you read in WBC_REVISION."
)
NO_EVIDENCE = (
    "The model {model!r} gives no evidence of shape (1, classes, h, w) beside its logits: it is no WBC ResNet."
)
NOT_LOADED = "The model {model!r} could not be loaded: {reason}"
PORT_TAKEN = (
    "Cannot listen on {host}:{port}: the port is taken, or the address is not this machine's. Try --port {other}, "
    "or make demo PORT={other}."
)

# The report of a differential count.
REPORT_TITLE = "Differential count"
REPORT_PURPOSE = "For research and teaching, not for diagnosis."
REPORT_COUNTED = "Cells counted: {counted}, in {images} photo(s)"
REPORT_REPEATED = "seen in an earlier photo already: {number}"
REPORT_DROPPED = "finds dropped by the reviewer: {number}"
REPORT_REVIEWED = "named by the reviewer: {number}"
REPORT_REFUSED = "photos refused: {number}"
REPORT_COLUMNS = ("", "count", "%", "95 % interval", "adjusted %", "95 % interval", "usual", "", "per µL")
REPORT_FLAGS = {"low": "low", "high": "high"}
REPORT_FLAG_UNSURE = "{flag}?"
REPORT_FLAGS_MEAN = "low? and high?: the usual range lies within the interval's reach."
REPORT_ADJUSTED = (
    "Interval: sampling alone. Adjusted: corrected for the network's own errors on held-out cells; its interval covers both. "
    "Unidentified cells are shared out."
)
REPORT_AS_MANY = "Had {number} cells come out alike, the intervals for sampling were: {limits}."
REPORT_SHOWN = "{shown} of {count}"
REPORT_MORE = "and {number} more"
REPORT_SECTIONS = {
    "warnings": "Warnings",
    "cells": "Cells",
    "refused": "Photos refused, counted nowhere",
    "reviewed": "Changes by the reviewer",
    "overlaps": "Notes on photos",
}
REPORT_CHANGE = "{image}, cell {cell}: {before} → {after}"
REPORT_CHANGED_AT = ", {time}"
REPORT_DROPPED_AS = "no cell"
REPORT_NOT_REVIEWED = "NOT REVIEWED: nobody has looked at {number} unidentified cell(s)."
REPORT_MODEL = "Model {name}, revision {revision}, weights SHA-256 {sha256}. Schema {schema}."
REPORT_UNKNOWN = "not known"
# On a picture of a field.
FIELD_REPEATED = "counted before"
FIELD_DROPPED = "no cell"

# For the person who counts from a terminal.
COUNT_WROTE = "Wrote {folder}: report.pdf, report.json, cells.csv, count.csv and the fields with their cells"
COUNT_NO_FILES = "{path} holds no photos ({endings})."
COUNT_EXISTS = "{folder} is not empty. Name a new folder, or empty this one."
