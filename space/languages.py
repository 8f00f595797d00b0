"""What stands on the page, in each language; a reader's browser says which is shown.

Labels of gradio's own components are translated in the browser by ``I18N``; the parts that are written here as HTML, by
``words(request)``. The model's own sentences, its warnings and refusals, it says in English and tells which they are:
``Words.said`` gives them in another language. Reports, files to keep and the endpoints are in English, for whoever reads them
next.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import gradio as gr

ENGLISH = {
    "decimal_mark": ".",
    "per_cent": "{number}%",
    "title": "Which white blood cell is this?",
    "lead": "Drop a photo of a stained blood smear: it names the white cell and shows where it looked.",
    "purpose": "For research and teaching, not for diagnosis.",
    "tab_cell": "One cell",
    "tab_fields": "Smear fields",
    "tab_laboratory": "My laboratory",
    "tab_about": "About",
    # One cell
    "photo": "Photo of a stained blood smear",
    "photo_place": "Drop or paste a photo here,\nor click to choose one",
    "examples": "Or try a drawing. A program drew these; they are no photos.",
    "welcome": "What it can name",
    "welcome_hint": "Best with one white cell, sharp and near the middle, taken through a 100x objective.",
    "name_neutrophil": "Neutrophil",
    "name_lymphocyte": "Lymphocyte",
    "name_monocyte": "Monocyte",
    "name_eosinophil": "Eosinophil",
    "name_basophil": "Basophil",
    "name_other": "Other",
    "name_unidentified": "Unidentified",
    "name_dropped": "No cell",
    "nucleus_neutrophil": "Nucleus: two to five lobes on thin threads, dense.",
    "cytoplasm_neutrophil": "Cytoplasm: pale pink, with fine granules that are hardly seen.",
    "nucleus_lymphocyte": "Nucleus: round, dense and dark, nearly as large as the cell.",
    "cytoplasm_lymphocyte": "Cytoplasm: a thin rim of clear blue, most often without granules.",
    "nucleus_monocyte": "Nucleus: large, folded or shaped like a kidney, with a lacy pattern.",
    "cytoplasm_monocyte": "Cytoplasm: wide, grey-blue like ground glass, often with holes; dust-like granules.",
    "nucleus_eosinophil": "Nucleus: two lobes, most often.",
    "cytoplasm_eosinophil": "Cytoplasm: full of coarse round granules of one size, orange to red.",
    "nucleus_basophil": "Nucleus: lobed, hard to see under the granules.",
    "cytoplasm_basophil": "Cytoplasm: coarse blue-black granules, few or many, over the nucleus too.",
    "nucleus_other": "None of the five: immature cells, erythroblasts, platelets, red cells, empty ground.",
    "cytoplasm_other": "",
    "look_for": "What to look for",
    "confused": "Of {n} held-out photos of this class {percent} were taken for {other}, its most frequent confusion.",
    "never_confused": "None of {n} held-out images of this class was taken for another.",
    "sure": "{percent} sure",
    "likeliest": "Likeliest: {name}, {percent}",
    "none_of_them": "None of the {number} subtypes",
    "none_means": "Another cell, such as an immature one or an erythroblast, or no white cell at all.",
    "no_cell": "No white cell found",
    "no_cell_why": "Nothing in this photo looks like the nucleus of a white cell. Move on to another place, or take a sharper photo.",
    "no_smear": "This is no photo of a stained smear",
    "reason_low confidence": "It is not sure enough to name this cell: it names one from {least} on.",
    "reason_unlike the images learnt from": "This photo is unlike those that it learnt from: trust none of the figures.",
    "doubtful": "Less than half: more likely some other cell than this one.",
    "probabilities": "Probability of each class",
    "looked": "Where it looked",
    "looked_alt": "The photo; colour marks the places that spoke for: {name}.",
    "strength": "Strength of the overlay",
    "less": "less",
    "more": "more",
    "explanation": "Brighter places spoke more for this class than for the others. The answer is computed from the same "
    "evidence, averaged over the whole photo.",
    "explanation_empty": "No single place spoke for this class more than for the others.",
    # A picture that came: what was done to it before the network saw it, and what stops the answer
    "note_transparent": "The picture has transparent parts; they were laid on white.",
    "note_cmyk": "The picture is in printing colours (CMYK); its colours were converted to RGB and may be off.",
    "note_grey": "The picture is grey. The network learned from coloured stains: trust this answer less.",
    "note_deep_grey": "The picture has more than 8 bits of grey; its darkest to lightest values were spread over 8 bits.",
    "note_frames": "The file holds {frames} pictures; the first one was used.",
    "note_unfound": "The search for cells in fields finds none here: the photo may show too little round the cell, or far more than "
    "one. Best is a photo about {window} times as wide as the cell.",
    "picture_none": "No picture came. Choose one, paste one, or take one with the camera.",
    "picture_unreadable": "This file cannot be read as a picture. Send a JPEG, PNG, WebP, TIFF, BMP or GIF; for others, export a PNG first.",
    "picture_damaged": "This picture is damaged or cut short: its last part is missing. Copy or export it again.",
    "picture_large": "This picture has more than {limit} million pixels. Crop it to the cell first.",
    "picture_heavy": "This picture's file is larger than {limit} MB. Crop it to the cell first, or save it as JPEG.",
    "picture_small": "This picture has {width}x{height} px; at least {limit}x{limit} px are needed. Send a larger crop of the cell.",
    "picture_no_numbers": "This picture holds values that are not numbers (NaN or infinite). Export it again as an 8-bit PNG.",
    "picture_no_base64": "What stands after the comma of this data URL is no base64 ({reason}). Expected the whole file, encoded once, as data:image/jpeg;base64,...; encode it anew.",
    # What is dropped, pasted or chosen
    "send_place": "Drop photos here, or a folder of them,\nor click to choose",
    "send_heavy": "Left out, larger than {limit} MB: {names}. Save as JPEG, or crop.",
    "send_strange": "Left out, no pictures: {names}.",
    "send_more": "{names} and {number} more",
    "send_none": "No picture lies in there.",
    "send_single": "One photo is taken at a time, this one: {name}. Smear fields counts many.",
    "send_closed": "This box is closed while photos are read. Send them once more when it is open.",
    "send_unread": "Left out, not read: {names}.",
    "send_no_picture": "The clipboard holds no picture. Copy one first, or choose a file.",
    "send_clipboard_denied": "The browser does not let this page read the clipboard. Paste with the keyboard, or choose a file.",
    "send_clipboard_failed": "The clipboard could not be read. Paste with the keyboard, or choose a file.",
    "send_camera_denied": "The browser does not let this page use the camera. Allow it there, or choose a photo.",
    "send_camera_failed": "No camera was found, or it could not be started. Choose a photo instead.",
    # Smear fields
    "fields_lead": "Drop the photos of one slide, or their folder. Every white cell is found, named and counted; you check the doubtful ones.",
    "fields_photos": "Photos of one slide",
    "fields_example": "Try drawn fields",
    "fields_cancel": "Cancel",
    "fields_again": "Start over",
    "fields_back": "Bring back the slide before",
    "fields_more": "And {number} more.",
    "fields_limit": "At most {files} photos of {weight:.0f} MB and {pixels:.0f} million pixels each.",
    "fields_too_many": "{given} photos came; at most {files} go at once. Leave some out, or count them as two slides.",
    "fields_too_heavy": "{name} is larger than {limit:.0f} MB. Save it as JPEG, or crop it.",
    "fields_none": "No photo came. Drop some, or choose them.",
    "fields_busy": "Reading photo {done} of {total}",
    "fields_so_far": "{number} white cells so far",
    "fields_so_far_one": "1 white cell so far",
    "fields_waiting": "Waiting for other visitors' counts; before yours: {number}",
    "fields_counting": "Counting",
    "fields_cancelled": "Cancelled after {done} of {total} photos; nothing of them was kept.",
    "fields_former": "Below stands the slide that was counted before, as you left it.",
    "visit_over": "This visit has ended: for {minutes} minutes nothing was asked, or the server was started anew. The photos and "
    "their count were deleted. To start over, drop the photos again.",
    "fields_failed": "The count failed: {reason}",
    "fields_no_cells": "No white cell was found in these photos.",
    "differential": "Differential count",
    "cells_counted": "{number} cells counted",
    "cells_counted_one": "1 cell counted",
    "in_photos": "in {number} photos",
    "in_photos_one": "in 1 photo",
    "facts_repeated": "{number} seen in an earlier photo already",
    "facts_dropped": "{number} dropped by you",
    "facts_reviewed": "{number} named by you",
    "facts_refused": "{number} photos refused",
    "facts_refused_one": "1 photo refused",
    "not_reviewed": "Not reviewed",
    "not_reviewed_why": "{number} unidentified cells are still to be looked at.",
    "not_reviewed_why_one": "1 unidentified cell is still to be looked at.",
    "reviewed": "Reviewed",
    "reviewed_why": "You have looked at every unidentified cell.",
    "nothing_unidentified": "Nothing unidentified",
    "nothing_unidentified_why": "It named every cell itself; look through them all the same.",
    "no_cells": "No cells",
    "no_cells_why": "There is nothing to review.",
    "column_class": "Class",
    "column_count": "Cells",
    "column_percent": "%",
    "column_interval": "95 % interval",
    "column_adjusted": "Adjusted %",
    "column_usual": "Usual",
    "column_absolute": "Per µL",
    "flag_low": "low",
    "flag_high": "high",
    "flag_unsure": "perhaps {flag}",
    "adjusted_means": "95 % interval: sampling alone. Adjusted: corrected for the network's own errors on held-out cells; unidentified cells are shared out. Flags and counts per µL go by the adjusted per cent.",
    "warnings": "Mind",
    "refused": "Photos refused, counted nowhere",
    "notes": "Notes on photos",
    "total": "White cells per µL (optional)",
    "total_wrong": "{given!r} is no number of white cells per µL; expected such as 7200.",
    "total_few": "{given} white cells per µL are too few, at least {least} are expected. 7.2 × 10⁹ per litre are 7200 per µL.",
    "total_many": "{given} white cells per µL are too many, at most {most} are expected. 7.2 × 10⁹ per litre are 7200 per µL.",
    "total_means": "{number} per µL, which is {billions} × 10⁹ per litre.",
    "laboratory": "Whose errors apply",
    "laboratory_any": "not known: all are possible",
    "ranges": "Usual ranges, %",
    "ranges_hint": "Adults'; laboratories differ, so put in yours. An empty field sets no limit.",
    "range_low": "{name}, lowest",
    "range_high": "{name}, highest",
    "range_wrong": "{name}: {low} to {high} is no range; expected two per cents from 0 to 100, the lower one first.",
    "option_wrong": "Not taken over, and nothing stands in its place. {reason}",
    "download_pdf": "Report (PDF)",
    "download_json": "All data (JSON)",
    "download_cells": "Cells (CSV)",
    "download_count": "Count (CSV)",
    "cells": "Cells",
    "cells_hint": "Unidentified ones first, the surest of each class first. Choose a cell, then say what it is; keys 1 to {keys} work too.",
    "cell_name": "{name}, {sure}, cell {cell} of {image}",
    "cell_yours": "named by you",
    "cell_reason_low confidence": "Not named, for it is not sure enough.",
    "cell_reason_unlike the images learnt from": "Not named, for it is unlike the cells that the network learnt from.",
    "panel_none": "Choose a cell below or in a photo.",
    "panel_end": "That was the last one of this group that nobody had named. Choose another cell.",
    "group_all": "All {number} are right",
    "group_all_one": "It is right",
    "panel_enlarge": "Enlarge the picture of the chosen cell",
    "panel_machine": "It says: {verdict}; likeliest {label}, {percent}.",
    "panel_label": "What is this cell?",
    "photos": "Photos",
    "white_cells": "{number} white cells",
    "white_cells_one": "1 white cell",
    "field_again": "counted before",
    "log": "Changes",
    "log_none": "No change yet.",
    "log_row": "cell {cell} of {image}",
    "undo": "Undo the last change",
    # My laboratory and About
    "lab_knows": "What the model knows",
    "lab_column_name": "Laboratory",
    "lab_column_source": "Stain and camera",
    "lab_column_images": "Held-out images",
    "lab_column_accuracy": "Balanced accuracy, %",
    "lab_column_plain": "As it comes, %",
    "lab_column_new": "Statistics re-estimated, %",
    "lab_column_class": "Class",
    "lab_column_cells": "Cells",
    "lab_column_mind": "Mind",
    "lab_column_before": "Before",
    "lab_column_after": "After",
    "lab_column_right_before": "Right before, %",
    "lab_column_right_after": "Right after, %",
    "lab_blood-cells": "Kaggle's blood-cell photos (BCCD): one stain, one camera",
    "lab_pbc": "Barcelona: May-Grünwald-Giemsa, CellaVision DM96",
    "lab_raabin": "Iran: several stains, microscopes and phone cameras",
    "lab_chula": "Bangkok: a poor camera, colour cast, blur",
    "lab_outside": "Balanced accuracy: the mean share named rightly over the classes, with its 95 % interval where there are slides enough to tell one. Outside what it knows: other stains and cameras, bone marrow, blasts and other diseased cells, other species.",
    "lab_strange": "Networks of this kind, each in a laboratory that it had never seen: balanced accuracy",
    "lab_lead": "Fit it to your stain and camera. Add images of single cells, with labels or without, or the cells of the slide that you reviewed. They stay in this visit. Without labels the statistics can be re-estimated; to labelled cells the model is fitted, statistics and last layer, each time from the model as it came.",
    "lab_label": "These images show",
    "lab_no_label": "mixed cells, no label",
    "lab_files": "Images of single cells",
    "lab_slide": "Take the cells of my reviewed slide",
    "lab_clear": "Forget my cells",
    "lab_cells": "Your cells",
    "lab_unlabelled": "Without a label",
    "lab_few": "few: {wanted} are wanted",
    "lab_few_images": "These are few images: a single odd one moves the result.",
    "lab_estimate": "Re-estimate the statistics, no labels needed",
    "lab_fit_button": "Fit the model to the labelled cells",
    "lab_busy": "Looking at your cells: {percent} %",
    "lab_reading": "Taking your cells: {percent} %",
    "lab_waiting": "Waiting for what was asked for before; before yours: {number}",
    "lab_download": "Download the adapted model (zip)",
    "lab_added": "New cells: {number}.",
    "lab_changed": "Taken before, now with another label or gone: {number}.",
    "lab_forgotten": "What was fitted without them is gone: fit again.",
    "lab_cancelled": "Cancelled; nothing was fitted.",
    "lab_not_taken": "Cancelled; none of these cells was taken.",
    "lab_too_many": "{number} cells are too many; expected {most} at most.",
    "lab_no_cells": "There are no cells. Add some first.",
    "lab_too_few": "Too few labelled cells ({number}); expected {fewest} at least of two classes or more, better {wanted} of each.",
    "lab_left_out": "Too few to learn from, and taken as unlabelled: {classes}.",
    "lab_no_gain": "On your cells it is no better than the model as it came: keep that one, or bring more cells.",
    "lab_several": "More than one white cell seems to stand in {number} of them ({photos}), and each photo has one label: photos of fields are better counted under Smear fields, and the reviewed cells taken from there.",
    "lab_unnamed": "{number} that you did not name yourself came without a label; in the review a whole group can be confirmed at once.",
    "lab_still": "What was fitted before stands.",
    "lab_too_many_files": "{given} images came; at most {files} go at once. Bring them in several parts.",
    "lab_one_class": "Only one class has {fewest} labelled cells or more ({label}: {number}); expected two. Add cells of another.",
    "lab_leave_out": "Leave it out, or take the photo anew.",
    "lab_nothing_fitted": "Nothing was fitted yet. Re-estimate the statistics, or fit the model to labelled cells.",
    "lab_unseen_classes": "Not learnt from your cells: {classes}. The fitted model can name these less well than before.",
    "lab_no_slide": "There is no slide. Count one under Smear fields first.",
    "lab_statistics": "{images} images; distance from the images learnt from: {distance}. {share} % of the statistics are new.",
    "lab_thresholds": "When a cell is left unidentified was settled with the old statistics: how often the new network is right where it names a cell was not measured.",
    "lab_rule_yes": "A rule, which looks at how sure the network becomes, says that this is likely to help. It can be wrong: compare the answers.",
    "lab_rule_no": "A rule, which looks at how sure the network becomes, says that new statistics may do harm. It can be wrong: compare the answers.",
    "lab_answers": "Answers before and after",
    "lab_fit": "On your cells: {before} % before, {after} % after.",
    "lab_fit_means": "Balanced accuracy on {n} labelled cells, each named by a model that learnt from other photos ({folds}-fold cross-validation); in brackets 95 % intervals, in which the cells of a class from one photo count as one; {share} % of the statistics are new; {seconds} s. Cells of one patient or slide that stand in several photos make it look better than it is.",
    "lab_untried": "Fitted to {n} labelled cells; what that gains could not be tried.",
    "lab_gain": "Right answers before and after",
    "lab_home": "In the laboratories that it learnt from an adapted model does worse; use it for your own. It has no threshold any more and always answers.",
    "lab_cost": "What it costs: networks of this kind that were fitted to another laboratory's cells went from {before} % to {after} % on average in the laboratories that they had learnt from.",
    "lab_fitted_before": "What fitting to a few labelled cells did for networks that had never seen the laboratory",
    "lab_column_labelled": "Labelled cells",
    "lab_column_others": "Its other cells, before → after, %",
    "lab_column_home": "Where it had learnt, before → after, %",
    "lab_fitted_means": "Balanced accuracy, the mean of several choices of the labelled cells; no photo stands on both sides, and no slide unless it is said. These are other networks than in the table above.",
    "lab_cells_slides": "other photos of the same slides",
    "lab_cells_found": "cells cut out by the finder",
    "lab_cells_views": "a network shown each image in two ways",
    "about_title": "What this is",
    "about_text": "A 24-layer ResNet of 1.4 million parameters, ResNet-50's first 23 layers and one linear layer, learnt on four laboratories' images. The same weights answer here, in Python and through the Hub's inference API.",
    "about_results": "Results",
    "about_none": "This model brings no results.",
    "about_column_data": "Images of",
    "about_column_split": "Split",
    "about_column_images": "Images",
    "about_column_photos": "Photos",
    "about_column_accuracy": "Accuracy, %",
    "about_column_balanced": "Balanced accuracy, %",
    "about_column_named": "Named, %",
    "about_column_right": "Of these right, %",
    "about_named": "Named: the answer was sure enough to be given; the others are unidentified.",
    "about_intervals": "In brackets: 95 % intervals that resample photos, not images, since copies of one photo stand or fall together.",
    "about_confusion": "Confusion matrix, {data}, test images",
    "about_reliability": "Reliability, {data}, test images",
    "about_limits": "Limits",
    "about_limit_1": "For research and teaching. Not a medical device, not for diagnosis.",
    "about_limit_2": "With a stain or camera it has not seen it errs more often than the table says, and may be sure of it.",
    "about_limit_3": "Blasts, atypical lymphocytes and other diseased cells are no classes of it; it may call them one of the five.",
    "about_limit_4": "Nothing is known of the people behind the photos that it learnt from.",
    "about_licence": "Licence and data",
    "about_data": "Code and weights: Apache-2.0. Data: Kaggle's blood cells and BCCD (MIT), PBC (Acevedo et al. 2020, CC BY 4.0), Raabin-WBC (Kouzehkanan et al. 2022) as redistributed in TXL-PBC (MIT), Chula WBC (MIT).",
    # Foot
    "foot_always": "The model always chooses from its list, even for a photo without a white cell.",
    "foot_unidentified": "Where the model is not sure enough it says unidentified. Of the names that it gave to validation images at most {risk} were wrong; with a stain or a camera it has not seen, expect more.",
    "foot_measured": "Where the model is not sure enough it says unidentified. In the {number} laboratories that it learnt from it named {named} of the held-out images, and of those names {wrong} were wrong; with a stain or a camera it has not seen, expect more.",
    "foot_privacy": "Nothing is kept: photos are deleted when you leave, within the hour at the latest, and used for nothing else.",
    "foot_weights": "Weights: {name}, SHA-256 {sha256}, {licence}.",
    "foot_api": "For programs and assistants: API and MCP",
}

GERMAN = {
    "decimal_mark": ",",
    "per_cent": "{number}\N{NO-BREAK SPACE}%",
    "title": "Welche weiße Blutzelle ist das?",
    "lead": "Foto eines gefärbten Blutausstrichs ablegen: Die Seite nennt die weiße Zelle und zeigt, worauf sie achtete.",
    "purpose": "Für Forschung und Lehre, nicht für die Diagnose.",
    "tab_cell": "Eine Zelle",
    "tab_fields": "Gesichtsfelder",
    "tab_laboratory": "Mein Labor",
    "tab_about": "Über",
    "photo": "Foto eines gefärbten Blutausstrichs",
    "photo_place": "Foto hier ablegen oder einfügen,\noder klicken und auswählen",
    "examples": "Oder eine Zeichnung versuchen. Ein Programm hat sie gezeichnet; es sind keine Fotos.",
    "welcome": "Was sie nennen kann",
    "welcome_hint": "Am besten mit einer weißen Zelle, scharf und nahe der Mitte, durch ein 100er-Objektiv aufgenommen.",
    "name_neutrophil": "Neutrophiler",
    "name_lymphocyte": "Lymphozyt",
    "name_monocyte": "Monozyt",
    "name_eosinophil": "Eosinophiler",
    "name_basophil": "Basophiler",
    "name_other": "Andere",
    "name_unidentified": "Unbestimmt",
    "name_dropped": "Keine Zelle",
    "nucleus_neutrophil": "Kern: zwei bis fünf Segmente an dünnen Fäden, dicht.",
    "cytoplasm_neutrophil": "Zytoplasma: blassrosa, mit feinen, kaum sichtbaren Granula.",
    "nucleus_lymphocyte": "Kern: rund, dicht und dunkel, fast so groß wie die Zelle.",
    "cytoplasm_lymphocyte": "Zytoplasma: ein schmaler, klar blauer Saum, meist ohne Granula.",
    "nucleus_monocyte": "Kern: groß, gefaltet oder nierenförmig, mit lockerem Muster.",
    "cytoplasm_monocyte": "Zytoplasma: breit, graublau wie Milchglas, oft mit Vakuolen; staubfeine Granula.",
    "nucleus_eosinophil": "Kern: meist zwei Segmente.",
    "cytoplasm_eosinophil": "Zytoplasma: voll grober, runder, gleich großer Granula, orange bis rot.",
    "nucleus_basophil": "Kern: gelappt, unter den Granula schwer zu sehen.",
    "cytoplasm_basophil": "Zytoplasma: grobe blauschwarze Granula, wenige oder viele, auch über dem Kern.",
    "nucleus_other": "Keine der fünf: unreife Zellen, Erythroblasten, Thrombozyten, Erythrozyten, leerer Grund.",
    "cytoplasm_other": "",
    "look_for": "Woran man sie erkennt",
    "confused": "Von {n} zurückgehaltenen Fotos dieser Klasse wurden {percent} für {other} gehalten, ihre häufigste Verwechslung.",
    "never_confused": "Keines von {n} zurückgehaltenen Bildern dieser Klasse wurde für eine andere gehalten.",
    "sure": "{percent} sicher",
    "likeliest": "Am ehesten: {name}, {percent}",
    "none_of_them": "Keiner der {number} Subtypen",
    "none_means": "Eine andere Zelle, etwa eine unreife oder ein Erythroblast, oder gar keine weiße Zelle.",
    "no_cell": "Keine weiße Zelle gefunden",
    "no_cell_why": "Nichts in diesem Foto gleicht dem Kern einer weißen Zelle. An eine andere Stelle gehen oder schärfer fotografieren.",
    "no_smear": "Das ist kein Foto eines gefärbten Ausstrichs",
    "reason_low confidence": "Nicht sicher genug, um diese Zelle zu nennen: Genannt wird ab {least}.",
    "reason_unlike the images learnt from": "Dieses Foto gleicht den gelernten nicht: Keiner Zahl ist zu trauen.",
    "doubtful": "Weniger als die Hälfte: eher eine andere Zelle als diese.",
    "probabilities": "Wahrscheinlichkeit jeder Klasse",
    "looked": "Worauf sie achtete",
    "looked_alt": "Das Foto; Farbe zeigt die Stellen, die für {name} sprachen.",
    "strength": "Stärke der Überlagerung",
    "less": "weniger",
    "more": "mehr",
    "explanation": "Hellere Stellen sprachen mehr für diese Klasse als für die anderen. Die Antwort wird aus denselben Hinweisen "
    "berechnet, gemittelt über das ganze Foto.",
    "explanation_empty": "Keine einzelne Stelle sprach für diese Klasse mehr als für die anderen.",
    # A picture that came
    "note_transparent": "Das Bild hat durchsichtige Teile; sie wurden auf Weiß gelegt.",
    "note_cmyk": "Das Bild ist in Druckfarben (CMYK); seine Farben wurden in RGB umgerechnet und können abweichen.",
    "note_grey": "Das Bild ist grau. Das Netz lernte an gefärbten Bildern: dieser Antwort weniger trauen.",
    "note_deep_grey": "Das Bild hat Grau mit mehr als 8 Bit; seine dunkelsten bis hellsten Werte wurden auf 8 Bit verteilt.",
    "note_frames": "Die Datei enthält {frames} Bilder; das erste wurde genommen.",
    "note_unfound": "Die Suche nach Zellen in Gesichtsfeldern findet hier keine: Vielleicht ist zu wenig um die Zelle herum "
    "zu sehen, oder weit mehr als eine. Am besten ist ein Foto, das etwa {window}-mal so breit ist wie die Zelle.",
    "picture_none": "Es kam kein Bild. Eines auswählen, einfügen oder mit der Kamera aufnehmen.",
    "picture_unreadable": "Diese Datei lässt sich nicht als Bild lesen. JPEG, PNG, WebP, TIFF, BMP oder GIF senden; andere zuerst als PNG speichern.",
    "picture_damaged": "Dieses Bild ist beschädigt oder abgeschnitten: Sein letzter Teil fehlt. Noch einmal kopieren oder speichern.",
    "picture_large": "Dieses Bild hat mehr als {limit} Millionen Pixel. Zuerst auf die Zelle zuschneiden.",
    "picture_heavy": "Die Datei dieses Bildes ist größer als {limit} MB. Zuerst auf die Zelle zuschneiden oder als JPEG speichern.",
    "picture_small": "Dieses Bild hat {width}x{height} px; mindestens {limit}x{limit} px sind nötig. Einen größeren Ausschnitt der Zelle senden.",
    "picture_no_numbers": "Dieses Bild enthält Werte, die keine Zahlen sind (NaN oder unendlich). Noch einmal als PNG mit 8 Bit speichern.",
    "picture_no_base64": "Was nach dem Komma dieser Daten-URL steht, ist kein Base64 ({reason}). Erwartet wird die ganze Datei, einmal kodiert, als data:image/jpeg;base64,...; neu kodieren.",
    # What is dropped, pasted or chosen
    "send_place": "Fotos oder einen Ordner hier ablegen,\noder klicken und auswählen",
    "send_heavy": "Ausgelassen, größer als {limit} MB: {names}. Als JPEG speichern oder zuschneiden.",
    "send_strange": "Ausgelassen, keine Bilder: {names}.",
    "send_more": "{names} und {number} weitere",
    "send_none": "Darin liegt kein Bild.",
    "send_single": "Es wird ein Foto auf einmal genommen, dieses: {name}. Gesichtsfelder zählt viele.",
    "send_closed": "Dieses Feld ist geschlossen, solange Fotos gelesen werden. Noch einmal senden, wenn es offen ist.",
    "send_unread": "Ausgelassen, nicht gelesen: {names}.",
    "send_no_picture": "In der Zwischenablage liegt kein Bild. Erst eines kopieren, oder eine Datei auswählen.",
    "send_clipboard_denied": "Der Browser lässt diese Seite die Zwischenablage nicht lesen. Mit der Tastatur einfügen oder eine Datei auswählen.",
    "send_clipboard_failed": "Die Zwischenablage ließ sich nicht lesen. Mit der Tastatur einfügen oder eine Datei auswählen.",
    "send_camera_denied": "Der Browser lässt diese Seite die Kamera nicht benutzen. Dort erlauben, oder ein Foto auswählen.",
    "send_camera_failed": "Keine Kamera gefunden, oder sie ließ sich nicht starten. Stattdessen ein Foto auswählen.",
    "fields_lead": "Alle Fotos eines Objektträgers oder ihren Ordner ablegen. Jede weiße Zelle wird gefunden, benannt und gezählt; zweifelhafte prüfen Sie.",
    "fields_photos": "Fotos eines Objektträgers",
    "fields_example": "Gezeichnete Felder versuchen",
    "fields_cancel": "Abbrechen",
    "fields_again": "Neu beginnen",
    "fields_back": "Vorigen Objektträger zurückholen",
    "fields_more": "Und {number} weitere.",
    "fields_limit": "Höchstens {files} Fotos mit je {weight:.0f} MB und {pixels:.0f} Millionen Pixeln.",
    "fields_too_many": "{given} Fotos kamen; höchstens {files} gehen auf einmal. Einige weglassen oder als zwei Objektträger zählen.",
    "fields_too_heavy": "{name} ist größer als {limit:.0f} MB. Als JPEG speichern oder zuschneiden.",
    "fields_none": "Es kam kein Foto. Welche ablegen oder auswählen.",
    "fields_busy": "Foto {done} von {total} wird gelesen",
    "fields_so_far": "bisher {number} weiße Zellen",
    "fields_so_far_one": "bisher 1 weiße Zelle",
    "fields_waiting": "Wartet auf die Zählungen anderer; vor Ihrer: {number}",
    "fields_counting": "Es wird gezählt",
    "fields_cancelled": "Nach {done} von {total} Fotos abgebrochen; von ihnen wurde nichts behalten.",
    "fields_former": "Unten steht der Objektträger, der zuvor gezählt wurde, wie Sie ihn verlassen haben.",
    "visit_over": "Dieser Besuch ist zu Ende: {minutes} Minuten lang wurde nichts gefragt, oder der Server wurde neu gestartet. Die "
    "Fotos und ihre Zählung wurden gelöscht. Um neu zu beginnen, die Fotos noch einmal ablegen.",
    "fields_failed": "Die Zählung misslang: {reason}",
    "fields_no_cells": "In diesen Fotos wurde keine weiße Zelle gefunden.",
    "differential": "Differentialblutbild",
    "cells_counted": "{number} Zellen gezählt",
    "cells_counted_one": "1 Zelle gezählt",
    "in_photos": "in {number} Fotos",
    "in_photos_one": "in 1 Foto",
    "facts_repeated": "{number} schon in einem früheren Foto",
    "facts_dropped": "{number} von Ihnen verworfen",
    "facts_reviewed": "{number} von Ihnen benannt",
    "facts_refused": "{number} Fotos abgelehnt",
    "facts_refused_one": "1 Foto abgelehnt",
    "not_reviewed": "Nicht geprüft",
    "not_reviewed_why": "{number} unbestimmte Zellen sind noch anzusehen.",
    "not_reviewed_why_one": "1 unbestimmte Zelle ist noch anzusehen.",
    "reviewed": "Geprüft",
    "reviewed_why": "Sie haben jede unbestimmte Zelle angesehen.",
    "nothing_unidentified": "Nichts unbestimmt",
    "nothing_unidentified_why": "Das Netz hat jede Zelle selbst benannt; trotzdem durchsehen.",
    "no_cells": "Keine Zellen",
    "no_cells_why": "Es gibt nichts zu prüfen.",
    "column_class": "Klasse",
    "column_count": "Zellen",
    "column_percent": "%",
    "column_interval": "95-%-Intervall",
    "column_adjusted": "Korrigiert %",
    "column_usual": "Üblich",
    "column_absolute": "Je µL",
    "flag_low": "niedrig",
    "flag_high": "hoch",
    "flag_unsure": "vielleicht {flag}",
    "adjusted_means": "95-%-Intervall: nur die Stichprobe. Korrigiert: um die Fehler des Netzes an zurückgehaltenen Zellen; unbestimmte Zellen sind aufgeteilt. Hinweise und Zahlen je µL gehen nach den korrigierten Prozenten.",
    "warnings": "Zu beachten",
    "refused": "Abgelehnte Fotos, nirgends gezählt",
    "notes": "Anmerkungen zu Fotos",
    "total": "Weiße Zellen je µL (freiwillig)",
    "total_wrong": "{given!r} ist keine Zahl weißer Zellen je µL; erwartet wird etwa 7200.",
    "total_few": "{given} weiße Zellen je µL sind zu wenige, mindestens {least} werden erwartet. 7,2 × 10⁹ je Liter sind 7200 je µL.",
    "total_many": "{given} weiße Zellen je µL sind zu viele, höchstens {most} werden erwartet. 7,2 × 10⁹ je Liter sind 7200 je µL.",
    "total_means": "{number} je µL, das sind {billions} × 10⁹ je Liter.",
    "laboratory": "Wessen Fehler gelten",
    "laboratory_any": "nicht bekannt: alle sind möglich",
    "ranges": "Übliche Bereiche, %",
    "ranges_hint": "Von Erwachsenen; Labore weichen ab, also die eigenen eintragen. Ein leeres Feld setzt keine Grenze.",
    "range_low": "{name}, kleinster",
    "range_high": "{name}, größter",
    "range_wrong": "{name}: {low} bis {high} ist kein Bereich; erwartet werden zwei Prozentzahlen von 0 bis 100, die kleinere zuerst.",
    "option_wrong": "Nicht übernommen, und nichts steht an seiner Stelle. {reason}",
    "download_pdf": "Bericht (PDF)",
    "download_json": "Alle Daten (JSON)",
    "download_cells": "Zellen (CSV)",
    "download_count": "Zählung (CSV)",
    "cells": "Zellen",
    "cells_hint": "Unbestimmte zuerst, in jeder Klasse die sichersten zuerst. Eine Zelle wählen, dann sagen, was sie ist; auch mit den Tasten 1 bis {keys}.",
    "cell_name": "{name}, {sure}, Zelle {cell} von {image}",
    "cell_yours": "von Ihnen benannt",
    "cell_reason_low confidence": "Nicht benannt, weil das Netz nicht sicher genug ist.",
    "cell_reason_unlike the images learnt from": "Nicht benannt, weil sie den gelernten Zellen nicht gleicht.",
    "panel_none": "Eine Zelle unten oder in einem Foto wählen.",
    "panel_end": "Das war die letzte noch nicht benannte dieser Gruppe. Eine andere Zelle wählen.",
    "group_all": "Alle {number} stimmen",
    "group_all_one": "Sie stimmt",
    "panel_enlarge": "Bild der gewählten Zelle vergrößern",
    "panel_machine": "Das Netz sagt: {verdict}; am ehesten {label}, {percent}.",
    "panel_label": "Was ist diese Zelle?",
    "photos": "Fotos",
    "white_cells": "{number} weiße Zellen",
    "white_cells_one": "1 weiße Zelle",
    "field_again": "schon gezählt",
    "log": "Änderungen",
    "log_none": "Noch keine Änderung.",
    "log_row": "Zelle {cell} von {image}",
    "undo": "Letzte Änderung zurücknehmen",
    # My laboratory and About
    "lab_knows": "Was das Modell kennt",
    "lab_column_name": "Labor",
    "lab_column_source": "Färbung und Kamera",
    "lab_column_images": "Zurückgehaltene Bilder",
    "lab_column_accuracy": "Ausgewogene Genauigkeit, %",
    "lab_column_plain": "Unverändert, %",
    "lab_column_new": "Statistik neu geschätzt, %",
    "lab_column_class": "Klasse",
    "lab_column_cells": "Zellen",
    "lab_column_mind": "Zu beachten",
    "lab_column_before": "Vorher",
    "lab_column_after": "Nachher",
    "lab_column_right_before": "Richtig vorher, %",
    "lab_column_right_after": "Richtig nachher, %",
    "lab_blood-cells": "Kaggles Blutzellfotos (BCCD): eine Färbung, eine Kamera",
    "lab_pbc": "Barcelona: May-Grünwald-Giemsa, CellaVision DM96",
    "lab_raabin": "Iran: mehrere Färbungen, Mikroskope und Telefonkameras",
    "lab_chula": "Bangkok: eine schwache Kamera, Farbstich, Unschärfe",
    "lab_outside": "Ausgewogene Genauigkeit: der mittlere Anteil richtig Benannter über die Klassen, mit 95-%-Intervall, wo die Objektträger eines hergeben. Außerhalb: andere Färbungen und Kameras, Knochenmark, Blasten und andere kranke Zellen, andere Arten.",
    "lab_strange": "Netze dieser Art, jedes in einem nie gesehenen Labor: ausgewogene Genauigkeit",
    "lab_lead": "An die eigene Färbung und Kamera anpassen. Bilder einzelner Zellen hinzufügen, mit Namen oder ohne, oder die Zellen des geprüften Objektträgers. Sie bleiben in diesem Besuch. Ohne Namen lässt sich die Statistik neu schätzen; an benannte Zellen wird das Modell angepasst, Statistik und letzte Schicht, jedes Mal vom mitgebrachten Modell aus.",
    "lab_label": "Diese Bilder zeigen",
    "lab_no_label": "gemischte Zellen, ohne Namen",
    "lab_files": "Bilder einzelner Zellen",
    "lab_slide": "Zellen meines geprüften Objektträgers nehmen",
    "lab_clear": "Meine Zellen vergessen",
    "lab_cells": "Ihre Zellen",
    "lab_unlabelled": "Ohne Namen",
    "lab_few": "wenige: {wanted} sind erwünscht",
    "lab_few_images": "Das sind wenige Bilder: Ein einziges abweichendes verschiebt das Ergebnis.",
    "lab_estimate": "Statistik neu schätzen, ohne Namen",
    "lab_fit_button": "Modell an benannte Zellen anpassen",
    "lab_busy": "Ihre Zellen werden angesehen: {percent} %",
    "lab_reading": "Ihre Zellen werden aufgenommen: {percent} %",
    "lab_waiting": "Wartet auf früher Verlangtes; vor Ihrem: {number}",
    "lab_download": "Angepasstes Modell laden (zip)",
    "lab_added": "Neue Zellen: {number}.",
    "lab_changed": "Schon aufgenommen, jetzt mit anderem Namen oder fort: {number}.",
    "lab_forgotten": "Was ohne sie angepasst wurde, ist fort: neu anpassen.",
    "lab_cancelled": "Abgebrochen; nichts wurde angepasst.",
    "lab_not_taken": "Abgebrochen; keine dieser Zellen wurde aufgenommen.",
    "lab_too_many": "{number} Zellen sind zu viele; höchstens {most} sind erlaubt.",
    "lab_no_cells": "Es sind keine Zellen da. Zuerst welche hinzufügen.",
    "lab_too_few": "Zu wenige benannte Zellen ({number}); gebraucht werden mindestens {fewest} aus zwei Klassen oder mehr, besser {wanted} aus jeder.",
    "lab_left_out": "Zu wenige, um daraus zu lernen, und als unbenannt genommen: {classes}.",
    "lab_no_gain": "An Ihren Zellen ist es nicht besser als das mitgebrachte Modell: bei diesem bleiben oder mehr Zellen bringen.",
    "lab_several": "Auf {number} davon scheint mehr als eine weiße Zelle zu sein ({photos}), und jedes Foto hat einen Namen: Gesichtsfelder besser unter Gesichtsfelder zählen und die geprüften Zellen von dort übernehmen.",
    "lab_unnamed": "{number}, die Sie nicht selbst benannt haben, kamen ohne Namen; in der Prüfung lässt sich eine ganze Gruppe auf einmal bestätigen.",
    "lab_still": "Was zuvor angepasst wurde, steht noch.",
    "lab_too_many_files": "{given} Bilder kamen; höchstens {files} gehen auf einmal. In mehreren Teilen bringen.",
    "lab_one_class": "Nur eine Klasse hat {fewest} benannte Zellen oder mehr ({label}: {number}); gebraucht werden zwei. Zellen einer anderen hinzufügen.",
    "lab_leave_out": "Weglassen oder das Foto neu aufnehmen.",
    "lab_nothing_fitted": "Noch wurde nichts angepasst. Die Statistik neu schätzen oder das Modell an benannte Zellen anpassen.",
    "lab_unseen_classes": "Nicht an Ihren Zellen gelernt: {classes}. Diese nennt das angepasste Modell weniger gut als zuvor.",
    "lab_no_slide": "Es gibt keinen Objektträger. Zuerst unter Gesichtsfelder einen zählen.",
    "lab_statistics": "{images} Bilder; Abstand von den gelernten Bildern: {distance}. {share} % der Statistik sind neu.",
    "lab_thresholds": "Wann eine Zelle unbestimmt bleibt, wurde mit der alten Statistik festgelegt: Wie oft das neue Netz recht hat, wo es eine Zelle nennt, wurde nicht gemessen.",
    "lab_rule_yes": "Nach einer Regel, die darauf sieht, wie sicher das Netz wird, hilft das wahrscheinlich. Sie kann irren: die Antworten vergleichen.",
    "lab_rule_no": "Nach einer Regel, die darauf sieht, wie sicher das Netz wird, kann eine neue Statistik schaden. Sie kann irren: die Antworten vergleichen.",
    "lab_answers": "Antworten vorher und nachher",
    "lab_fit": "An Ihren Zellen: {before} % vorher, {after} % nachher.",
    "lab_fit_means": "Ausgewogene Genauigkeit an {n} benannten Zellen, jede von einem Modell benannt, das aus anderen Fotos lernte ({folds}-fache Kreuzvalidierung); in Klammern 95-%-Intervalle, in denen Zellen einer Klasse aus einem Foto als eine zählen; {share} % der Statistik sind neu; {seconds} s. Stehen Zellen eines Patienten oder Objektträgers in mehreren Fotos, so sieht es besser aus, als es ist.",
    "lab_untried": "An {n} benannte Zellen angepasst; was das bringt, ließ sich nicht erproben.",
    "lab_gain": "Richtige Antworten vorher und nachher",
    "lab_home": "In den Laboren, aus denen es lernte, ist ein angepasstes Modell schlechter; nur für das eigene verwenden. Es hat keine Schwelle mehr und antwortet immer.",
    "lab_cost": "Was es kostet: Netze dieser Art, an Zellen eines anderen Labors angepasst, fielen in den Laboren, aus denen sie gelernt hatten, im Mittel von {before} % auf {after} %.",
    "lab_fitted_before": "Was das Anpassen an wenige benannte Zellen bei Netzen bewirkte, die das Labor nie gesehen hatten",
    "lab_column_labelled": "Benannte Zellen",
    "lab_column_others": "Seine anderen Zellen, vorher → nachher, %",
    "lab_column_home": "Wo es gelernt hatte, vorher → nachher, %",
    "lab_fitted_means": "Ausgewogene Genauigkeit, im Mittel mehrerer Auswahlen der benannten Zellen; kein Foto steht auf beiden Seiten, und kein Objektträger, wo nichts anderes gesagt ist. Es sind andere Netze als in der Tabelle darüber.",
    "lab_cells_slides": "andere Fotos derselben Objektträger",
    "lab_cells_found": "vom Zellfinder ausgeschnitten",
    "lab_cells_views": "ein Netz, dem jedes Bild auf zwei Arten gezeigt wurde",
    "about_title": "Was das ist",
    "about_text": "Ein ResNet mit 24 Schichten und 1,4 Millionen Parametern, die ersten 23 Schichten von ResNet-50 und eine lineare, gelernt an Bildern aus vier Laboren. Dieselben Gewichte antworten hier, in Python und über die Schnittstelle des Hubs.",
    "about_results": "Ergebnisse",
    "about_none": "Dieses Modell bringt keine Ergebnisse mit.",
    "about_column_data": "Bilder von",
    "about_column_split": "Teil",
    "about_column_images": "Bilder",
    "about_column_photos": "Fotos",
    "about_column_accuracy": "Genauigkeit, %",
    "about_column_balanced": "Ausgewogene Genauigkeit, %",
    "about_column_named": "Benannt, %",
    "about_column_right": "Davon richtig, %",
    "about_named": "Benannt: Die Antwort war sicher genug, um gegeben zu werden; die übrigen sind unbestimmt.",
    "about_intervals": "In Klammern: 95-%-Intervalle, die Fotos neu ziehen, nicht Bilder, denn Kopien eines Fotos stehen und fallen gemeinsam.",
    "about_confusion": "Verwechslungen, {data}, Testbilder",
    "about_reliability": "Verlässlichkeit, {data}, Testbilder",
    "about_limits": "Grenzen",
    "about_limit_1": "Für Forschung und Lehre. Kein Medizinprodukt, nicht für die Diagnose.",
    "about_limit_2": "Bei einer nie gesehenen Färbung oder Kamera irrt es öfter, als die Tabelle sagt, und ist sich dessen vielleicht sicher.",
    "about_limit_3": "Blasten, atypische Lymphozyten und andere kranke Zellen sind keine seiner Klassen; es nennt sie vielleicht eine der fünf.",
    "about_limit_4": "Über die Menschen hinter den gelernten Fotos ist nichts bekannt.",
    "about_licence": "Lizenz und Daten",
    "about_data": "Code und Gewichte: Apache-2.0. Daten: Kaggles Blutzellen und BCCD (MIT), PBC (Acevedo et al. 2020, CC BY 4.0), Raabin-WBC (Kouzehkanan et al. 2022), weitergegeben in TXL-PBC (MIT), Chula WBC (MIT).",
    "foot_always": "Das Modell wählt immer aus seiner Liste, auch bei einem Foto ohne weiße Zelle.",
    "foot_unidentified": "Wo das Modell nicht sicher genug ist, sagt es unbestimmt. Von den Namen, die es Validierungsbildern gab, waren höchstens {risk} falsch; bei einer Färbung oder Kamera, die es nicht kennt, sind es mehr.",
    "foot_measured": "Wo das Modell nicht sicher genug ist, sagt es unbestimmt. In den {number} Laboren, aus denen es lernte, benannte es {named} der zurückgehaltenen Bilder, und von diesen Namen waren {wrong} falsch; bei einer Färbung oder Kamera, die es nicht kennt, sind es mehr.",
    "foot_privacy": "Nichts wird behalten: Fotos werden gelöscht, wenn Sie gehen, spätestens nach einer Stunde, und für nichts anderes gebraucht.",
    "foot_weights": "Gewichte: {name}, SHA-256 {sha256}, {licence}.",
    "foot_api": "Für Programme und Assistenten: API und MCP",
}

for _texts in (ENGLISH, GERMAN):
    for _class in ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"):
        for _end in ("low", "high"):  # a component's label cannot be put together in the browser
            _texts[f"range_{_end}_{_class}"] = _texts[f"range_{_end}"].format(name=_texts[f"name_{_class}"])

# The model's own sentences, by the names that they bring; it says them in English itself. A name here has nothing to do with one
# above: the pipeline reads photos of fields by its own rules.
MODELS = MappingProxyType(
    {
        "de": {
            "images_refused": "{number} von {given} Fotos wurden abgelehnt und nicht gezählt.",
            "images_refused_one": "1 von {given} Fotos wurde abgelehnt und nicht gezählt.",
            "no_cell_counted": "Keine weiße Zelle wurde gezählt: Es gibt kein Differentialblutbild.",
            "few_cells": "Nur {number} Zellen wurden gezählt: Die Intervalle sind breit. Mindestens {fewest} zählen, besser {better}.",
            "few_cells_one": "Nur 1 Zelle wurde gezählt: Die Intervalle sind breit. Mindestens {fewest} zählen, besser {better}.",
            "low_total": "{total} weiße Zellen in einem Mikroliter sind kaum möglich: 7,2 mal 10⁹ in einem Liter sind 7200.",
            "unidentified_unseen": "{number} von {counted} Zellen{share} sind unbestimmt: Bevor die Zählung gilt, die ansehen, die noch niemand angesehen hat.",
            "unidentified_unseen_one": "1 von {counted} Zellen{share} ist unbestimmt: Bevor die Zählung gilt, sie ansehen, denn noch niemand hat es getan.",
            "unidentified_seen": "{number} von {counted} Zellen{share} sind unbestimmt: Jede hat ein Mensch angesehen.",
            "unidentified_seen_one": "1 von {counted} Zellen{share} ist unbestimmt: Ein Mensch hat sie angesehen.",
            "many_negatives": "{number} von {counted} Zellen ({share}) sind „{label}“, keine der anderen Klassen: Sie senken alle anderen Prozentsätze, und auf sie entfällt ein Teil der Gesamtzahl. Verwerfen, was keine weiße Zelle ist.",
            "many_negatives_one": "1 von {counted} Zellen ({share}) ist „{label}“, keine der anderen Klassen: Sie senkt alle anderen Prozentsätze, und auf sie entfällt ein Teil der Gesamtzahl. Verwerfen, was keine weiße Zelle ist.",
            "errors_unknown": "Wie oft dieses Netz irrt, wurde nicht gemessen: Die Intervalle gelten nur für die Stichprobe.",
            "errors_elsewhere": "Die Fehler des Netzes wurden in anderen Laboren gemessen, vielleicht nicht in dem dieses Objektträgers: Die korrigierten Zahlen gelten nur, wenn es hier irrt wie dort.",
            "errors_of_few": "Wie das Netz in {laboratory} irrt, wurde nur an wenigen Zellen gezählt, {labels}: Die korrigierten Zahlen dieser Klassen, und derer, für die sie gehalten werden, können weit von der Wahrheit liegen.",
            "errors_do_not_fit": "Die Antworten des Netzes auf diesem Objektträger gleichen denen keines Labors, in dem Fehler gemessen wurden: Den korrigierten Zahlen nicht trauen; die Zellen prüfen.",
            "image_empty": "{name}: Die Datei ist leer, 0 Bytes. Noch einmal von dort kopieren, woher sie kommt.",
            "image_large": "{name}: {width} x {height} px sind mehr als {most} Millionen Pixel. Zuschneiden oder verkleinern.",
            "image_bomb": "{name}: mehr als {most} Millionen Pixel. Zuschneiden oder verkleinern.",
            "image_unreadable": "{name}: Das ist kein Bild, das sich lesen lässt ({formats}). In einem Bildprogramm öffnen und als PNG speichern.",
            "image_damaged": "{name}: Die Datei ist beschädigt oder abgeschnitten. Noch einmal kopieren oder speichern.",
            "image_small": "{name}: {width} x {height} px; erwartet werden {least} oder mehr je Seite. Ein größeres Bild aufnehmen.",
            "image_no_numbers": "{name}: Das Bild enthält Werte, die keine Zahlen sind. Noch einmal als PNG mit 8 Bit speichern.",
            "image_no_smear": "{name}: {reason}. Weglassen oder das Foto neu aufnehmen.",
            "smear_strip": "kein gefärbter Ausstrich: Das Bild ist mehr als {times}-mal so lang wie breit",
            "smear_dark": "kein gefärbter Ausstrich: Das Bild ist zu dunkel",
            "smear_one_colour": "kein gefärbter Ausstrich: Das Bild hat überall eine Farbe, und nicht die von klarem Grund",
            "smear_grey": "kein gefärbter Ausstrich: Das Bild ist grau, und nur Farbe verrät eine Färbung",
            "smear_colourful": "kein gefärbter Ausstrich: Die hellen Teile sind zu farbig für klaren Grund",
            "smear_no_stain": "kein gefärbter Ausstrich: Die Farben sind nicht die einer Blutfärbung",
            "smear_contrast": "kein gefärbter Ausstrich: Hell und Dunkel liegen weiter auseinander als in einem Ausstrich",
            "smear_inverted": "kein gefärbter Ausstrich: Zu sehen ist Helles auf Dunklem, nicht Zellen auf klarem Grund",
            "note_frames": "Die Datei enthält {frames} Bilder; nur Nummer {frame} wurde gelesen.",
            "note_deep_grey": "Grau mit mehr als 8 Bit: Die dunkelsten bis hellsten Werte wurden auf 8 Bit verteilt.",
            "note_grey": "Ein graues Bild: Das Netz lernte an gefärbten, seinen Antworten weniger trauen.",
            "note_cmyk": "Druckfarben (CMYK) wurden in RGB umgerechnet und können abweichen.",
            "note_transparent": "Durchsichtige Teile wurden auf Weiß gelegt.",
            "note_other_size": "Anders groß als die anderen Felder: Ist auch die Vergrößerung eine andere, zählen gemeinsame Zellen doppelt.",
            "note_overlaps": "Überlappt {other}.",
            "note_overlaps_cells": "Überlappt {other}: {number} Zellen nur einmal gezählt.",
            "note_overlaps_cells_one": "Überlappt {other}: 1 Zelle nur einmal gezählt.",
            "cells_of_one_photo": "Alle {number} Zellen kommen aus einem Foto; erwartet werden zwei oder mehr. Zellen eines anderen benennen.",
            "class_of_one_photo_one": "Die eine Zelle der Klasse „{label}“ kommt aus einem Foto oder Feld; erwartet werden zwei oder mehr, damit jede von einer Schicht benannt wird, die eine andere sah. Mehr davon benennen oder weglassen.",
            "class_of_one_photo": "Die {number} Zellen der Klasse „{label}“ kommen aus einem Foto oder Feld; erwartet werden zwei oder mehr, damit jede von einer Schicht benannt wird, die eine andere sah. Mehr davon benennen oder weglassen.",
        }
    }
)
LANGUAGES = MappingProxyType({"en": ENGLISH, "de": GERMAN})
I18N = gr.I18n(**LANGUAGES)
# What gradio 6.31 calls its own parts in English whatever the language is.
GRADIOS = MappingProxyType(
    {
        "de": {
            "Upload file": "Datei auswählen",
            "File upload": "Datei auswählen",
            "Capture from camera": "Mit der Kamera aufnehmen",
            "Paste from clipboard": "Aus der Zwischenablage einfügen",
            "Remove Image": "Foto entfernen",
            "Drop an image file here to upload": "Foto hier ablegen",
            "Click to Access Webcam": "Klicken, um die Kamera zu benutzen",
            "capture photo": "Foto aufnehmen",
            "select input source": "Kamera wählen",
            "select source": "Kamera wählen",
            "grant webcam access": "Kamera erlauben",
        }
    }
)
TOO_MANY = ("fields_too_many", "lab_too_many_files")


def for_script() -> dict[str, Any]:
    """Give what the page's scripts say, by language: the texts about what is sent, and names for gradio's own parts."""
    return {
        language: {name: text for name, text in texts.items() if name.startswith("send_") or name in TOO_MANY}
        | {"parts": GRADIOS.get(language, {})}
        for language, texts in LANGUAGES.items()
    }


class Words(dict):
    """One language's texts by name; ``words["title"]``, or ``words("sure", percent="98.0%")`` with values put in."""

    def __call__(self, name: str, /, **values: Any) -> str:
        return self[name].format(**values)

    def many(self, name: str, number: int, **values: Any) -> str:
        """Give a text about a number of things; where there is one for a single thing, ``name_one``, that for 1."""
        one = f"{name}_one" if number == 1 and f"{name}_one" in self else name
        return self(one, number=number, **values)

    def said(self, sentence: str) -> tuple[str, str | None]:
        """Give a sentence of the model in this language, and None; where it is not known in it, in English, and "en".

        The model says it in English, and tells ``which`` it is and its ``values``; one of an older model may tell neither.
        """
        if self["language"] == "en":
            return str(sentence), None
        try:
            which, values = sentence.which, sentence.values
            texts = MODELS[self["language"]]
            one = f"{which}_one" if values.get("number") == 1 and f"{which}_one" in texts else which
            return texts[one].format(**{name: self.value_of(name, value) for name, value in values.items()}), None
        except (AttributeError, LookupError, TypeError, ValueError):
            return str(sentence), "en"  # another version of the model may bring other sentences and values

    def value_of(self, name: str, value: Any) -> Any:
        """Give what is put into a sentence of the model for a value: of a class its name in this language."""
        if name == "label":
            return self.label(value)
        if name == "labels":
            return ", ".join(f"{self.label(label)} ({number})" for label, number in value)
        if isinstance(value, float):
            return self.figure(value)
        if getattr(value, "which", None) is None:
            return value
        text, language = self.said(value)
        if language is not None:
            raise LookupError(f"{value!r} is not known in this language: then all of the sentence stays English.")
        return text

    def number(self, value: float, digits: int = 1) -> str:
        """Write a number with the language's decimal mark."""
        return f"{value:.{digits}f}".replace(".", self["decimal_mark"])

    def figure(self, value: float) -> str:
        """Write a number as a person would, with as many decimals as it has, up to nine digits."""
        return f"{value:.9g}".replace(".", self["decimal_mark"])

    def per_cent(self, probability: float) -> str:
        """Write a probability with one decimal, never rounded up to certainty or down to impossibility."""
        if probability >= 0.9995:
            return f">{self('per_cent', number=self.number(99.9))}"
        if probability < 0.0005:
            return f"<{self('per_cent', number=self.number(0.1))}"
        return self("per_cent", number=self.number(100 * probability))

    def span(self, low: float, high: float) -> str:
        """Write two shares, 0..1, as "1.2–3.4%"."""
        if self.per_cent(low) == self.per_cent(high):
            return self.per_cent(high)
        return f"{self.number(100 * low)}–{self.per_cent(high)}"

    def with_interval(self, share: Mapping[str, float | None] | None) -> str:
        """Write a share with its interval, 0..1 each, in per cent without the sign; nothing where there is no share."""
        if share is None:
            return ""
        if share["low"] is None:  # no interval is known
            return self.number(100 * share["value"])
        value, low, high = (self.number(100 * share[name]) for name in ("value", "low", "high"))
        return f"{value} ({low}–{high})"

    def label(self, label: str) -> str:
        """Give a class, "unidentified" or "dropped" its name; a class unknown here keeps its own."""
        return self.get(f"name_{label.lower()}") or label.replace("_", " ").strip().capitalize()


WORDS = {name: Words(texts, language=name) for name, texts in LANGUAGES.items()}


class Said(NamedTuple):
    """One of the page's texts, with its values, before it is known who reads it."""

    key: str
    values: Mapping[str, Any] = MappingProxyType({})

    def told(self, speech: Words) -> str:
        """Say it in the words of a language."""
        return speech(self.key, **{name: speech.value_of(name, value) for name, value in self.values.items()})


class SaidError(ValueError):
    """What a visitor asked cannot be done; ``said`` tells why in the visitor's language, the error itself in English."""

    def __init__(self, key: str, **values: Any):
        self.said = Said(key, values)
        super().__init__(self.told(WORDS["en"]))

    def told(self, speech: Words) -> str:
        """Say why, in the words of a language."""
        return self.said.told(speech)


def words(request: gr.Request | None = None) -> Words:
    """Choose the language that a browser asks for first; English where there is none or it is not spoken here.

    gradio, which shows ``I18N``, looks at the first alone, too: a second choice would make a page of two languages.
    """
    asked = "" if request is None else request.headers.get("accept-language", "")
    ranked = []
    for place, part in enumerate(asked.split(",")):
        tag, _, weight = part.partition(";q=")
        try:
            ranked.append((-float(weight or 1), place, tag.strip().lower().partition("-")[0]))
        except ValueError:  # a header that is none
            continue
    return WORDS.get(min(ranked, default=(0, 0, ""))[2], WORDS["en"])
