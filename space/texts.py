"""Sentences outside the page's own, in English: the endpoints, reports, and what whoever starts a program reads."""

LICENCE = "Apache-2.0"

# Of the endpoints and the tools: what they do, then their parameters, a line each.
API_CLASSIFY = (
    "Name the white blood cell in one photo of a stained blood smear. Returns JSON: verdict, what to call the cell; reason, "
    "why it has no subtype's name, else null; label, the likeliest one, its score and the probabilities of all, 0 to 1; "
    "notes, what to know of the picture, such as that it shows too little round its cell; model, which weights answered. A "
    "verdict is a subtype; or '{negatives}': none of the subtypes, such as an immature cell, an erythroblast or a platelet; or "
    "'{nothing}': nothing in the photo looks like the nucleus of one; or '{unidentified}': not sure enough, do not name the "
    "cell, tell the reason. For research and teaching, not for diagnosis."
)
API_DIFFERENTIAL = (
    "Find, name and count the white blood cells in the photos of one stained blood smear, and give the differential count. "
    "Returns JSON, described by differential.schema.json: for each class the count, per cent and exact 95 % interval, the per "
    "cent and interval adjusted for the network's own errors, flags and warnings; for each photo its cells with box, class, "
    "probability; a photo that cannot be used is listed as refused. Nobody has reviewed this count: say so. For research and "
    "teaching, not for diagnosis."
)
API_REPORT = (
    "As differential, but gives a report of one page as PDF: table, intervals, flags, pictures of the cells, warnings. Returns "
    "the file; as a tool JSON with its url, which works for less than an hour. Nobody has reviewed this count: say so. For "
    "research and teaching, not for diagnosis."
)
API_PHOTO = (
    "the picture itself: a data URL, data:image/jpeg;base64,...; or an uploaded file, in Python handle_file('cell.jpg'), "
    "else what /gradio_api/upload answers, as {{'path': ...}}; or a drawing to try: {{'path': 'examples/neutrophil.png'}}. "
    "Addresses are not fetched. JPEG, PNG, WebP, TIFF, BMP or GIF, at most {weight:.0f} MB. An uploaded file is deleted once "
    "it is answered."
)
API_NO_DRAWING = "There is no drawing {came}; expected one of {drawings}."
API_PHOTOS = "a list of the photos of one slide, at most {files}. Each is "
API_TOTAL = "white cells per microlitre of blood, such as 7200, for absolute counts; null where it is not known"
API_LABORATORY = (
    "whose images' errors the count is adjusted for: {laboratories}; null or empty, as it mostly is, for any other "
    "laboratory"
)
API_REFERENCE = (
    'usual ranges in per cent for the flags, such as {{"monocyte": [2, 8]}}, of {labels}; null for adults\' usual ones'
)
API_ADDRESS = "Addresses are not fetched: send the picture itself, uploaded or as a data URL."
API_RANGES = 'reference_ranges is no JSON ({reason}); expected such as {{"monocyte": [2, 8]}}.'
API_NO_CELL = "no nucleus of a white cell found"
API_NO_PICTURE = (
    "A text came that is no picture: expected a data URL, data:image/jpeg;base64,..., or the path of an upload."
)
API_BROKEN_OFF = "The upload broke off; nothing of it was kept. Send it anew."
API_PHOTO_KIND = (
    "{came} came in a photo's place; expected a data URL, data:image/jpeg;base64,..., or {{'path': ...}} of an upload."
)
API_PHOTOS_KIND = "photos is {came}; expected a list of photos, each a data URL or {{'path': ...}} of an upload."
API_LABORATORY_KIND = "laboratory is {came}; expected one name, of: {laboratories}; or empty for any other laboratory."
API_NOT_THERE = "No such file was uploaded, or it was answered and deleted: send the picture anew."

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
REPORT_COUNTED = "Cells counted: {counted}; photos: {images}"
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
    "Unidentified cells are shared out. Flags and counts per µL go by the adjusted per cent."
)
REPORT_AS_MANY = "Had {number} cells come out alike, the intervals for sampling were: {limits}."
REPORT_SHOWN = "{shown} of {count}"
REPORT_MORE = "and {number} more; all stand on the pages behind"
REPORT_FURTHER = "{date}, page {page} of {pages}"
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
REPORT_REVIEW = {
    "not reviewed": "NOT REVIEWED: unidentified cells that nobody has looked at: {unseen}.",
    "reviewed": "Reviewed: a person has looked at each unidentified cell ({unidentified}).",
    "nothing unidentified": "Nothing unidentified: the network named every cell itself.",
    "no cells": "No cells: there is nothing to review.",
}
REPORT_MODEL = "Model {name}, revision {revision}, weights SHA-256 {sha256}. Schema {schema}."
REPORT_UNKNOWN = "not known"
# On a picture of a field.
FIELD_REPEATED = "counted before"
FIELD_DROPPED = "no cell"

# For the person who counts from a terminal.
COUNT_WROTE = "Wrote {folder}: report.pdf, report.json, cells.csv, count.csv and the fields with their cells"
COUNT_NO_FILES = "{path} holds no photos ({endings})."
COUNT_EXISTS = "{folder} is not empty. Name a new folder, or empty this one."
