// Look through the cells: choose one, say what it is with a button or a key. The next cell is chosen at once, and what was
// said waits in a queue; Python takes the whole queue over, counts once, and sends the list anew with the last step's number.
const PATIENCE = 20000; // ms after which steps that nobody answered are sent again; Python takes each number once
let slide = null; // whose cells these are
let chosen = null; // "image-cell" that a key names
let at = null; // "image-cell" that has the focus, also where no cell is left to choose
let steps = []; // said, and not in the list yet
let last = 0; // number of the latest step
let waiting = null; // the timer of what was sent
let undoing = false; // the latest thing done here was to take a change back
let withKeys = false; // keys move the page along; who points scrolls
let quiet = false; // the focus is moved from here
let large = false; // the chosen cell's picture

const cells = () => [...element.querySelectorAll('button[data-cell]')];
const find = (id) => cells().find((cell) => cell.dataset.cell === id);
const button = (to) => [...element.querySelectorAll('[data-to]')].find((one) => one.dataset.to === to);

function choose(id, focus, told) {
  const cell = find(id);
  chosen = cell ? id : null;
  cells().forEach((one) => one.setAttribute('aria-pressed', one === cell));
  element.querySelectorAll('[data-to], [data-big]').forEach((one) => { one.disabled = !cell; });
  outline();
  const text = element.querySelector('.wbc-told');
  if (cell) {
    at = id;
    text.textContent = `${cell.dataset.name}. ${cell.dataset.told}`;
    element.querySelector('.wbc-big').className = `wbc-big wbc-c${id}`;
  } else if (text) {
    if (told) text.textContent = text.dataset[told];
    element.querySelector('.wbc-big').className = 'wbc-big';
  }
  if (focus) hold(true);
}

// Give the focus to the cell where the visitor is, clear of the panel that stays at the top.
function hold(scroll) {
  const cell = find(at);
  if (!cell) return;
  quiet = true;
  cell.focus({ preventScroll: true });
  quiet = false;
  if (!scroll) return;
  cell.style.scrollMarginTop = `${element.querySelector('.wbc-panel').offsetHeight + 12}px`;
  cell.style.scrollMarginBottom = '12px';
  cell.scrollIntoView({ block: 'nearest' });
}

function outline() {
  document.querySelectorAll('.wbc-photos [data-cell]').forEach((box) => box.classList.toggle('wbc-chosen', box.dataset.cell === chosen));
}

const unnamed = (group) => [...group.querySelectorAll('button[data-cell]')].filter((one) => one.querySelector('span').textContent !== '✓');

function mark({ cell: id, to, right, cells: all }) {
  if (right) {
    all.forEach((one) => mark({ cell: one, to: right }));
    const once = element.querySelector(`[data-right="${right}"]`);
    if (once) once.disabled = true;
    return;
  }
  const cell = id && find(id);
  if (!cell || !button(to)) return;
  cell.querySelector('span').textContent = '✓';
  cell.style.setProperty('--subtype', button(to).style.getPropertyValue('--subtype'));
}

function add(step) {
  last += 1;
  steps.push({ number: last, ...step });
  mark(step);
  element.querySelector('[data-undo]').disabled = false;
  if (waiting === null) send();
}

function send() {
  clearTimeout(waiting);
  waiting = null;
  if (!steps.length) return;
  waiting = setTimeout(send, PATIENCE);
  trigger('submit', { slide, steps });
}

function say(to) {
  const cell = chosen && find(chosen);
  if (!cell) return;
  const left = unnamed(cell.closest('.wbc-group'));
  const open = [...cell.closest('.wbc-group').querySelectorAll('button[data-cell]')].filter((one) => one === cell || left.includes(one));
  const after = open[open.indexOf(cell) + 1] || open[open.indexOf(cell) - 1];
  undoing = false;
  add({ cell: chosen, to });
  choose(after ? after.dataset.cell : null, true, 'end');
}

element.addEventListener('click', (event) => {
  const pressed = event.target.closest('button');
  if (!pressed) return;
  if (pressed.dataset.cell) { undoing = false; choose(pressed.dataset.cell, true); }
  else if (pressed.dataset.to) say(pressed.dataset.to);
  else if ('big' in pressed.dataset) pressed.setAttribute('aria-expanded', large = !large);
  else if (pressed.dataset.right) {
    undoing = false;
    add({ right: pressed.dataset.right, cells: unnamed(pressed.closest('.wbc-group')).map((one) => one.dataset.cell) });
  }
  else if ('undo' in pressed.dataset) { undoing = true; add({ undo: true }); }
});

element.addEventListener('keydown', (event) => {
  withKeys = true;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const named = element.querySelectorAll('[data-to]')[Number(event.key) - 1];
  if (named) { // a key that is held down names one cell, not all that follow
    event.preventDefault();
    if (!event.repeat) say(named.dataset.to);
    return;
  }
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const from = event.target.closest('button[data-cell]');
  if (!step || !from) return;
  event.preventDefault();
  undoing = false;
  const all = cells();
  choose((all[all.indexOf(from) + step] || from).dataset.cell, true);
});

// The cell with the focus is the one that a key names.
element.addEventListener('focusin', (event) => {
  const cell = event.target.closest('button[data-cell]');
  if (cell && !quiet && cell.dataset.cell !== chosen) { undoing = false; choose(cell.dataset.cell); }
});

['pointerdown', 'wheel'].forEach((kind) => document.addEventListener(kind, () => { withKeys = false; }, { passive: true }));
const here = (act) => (event) => { if (element.isConnected) act(event); }; // gradio may build the list a second time
document.addEventListener('wbc-cell', here((event) => { undoing = false; choose(event.detail, true); }));
document.addEventListener('wbc-photos', here(outline));
document.addEventListener('wbc-unsent', here((event) => Object.assign(event.detail, { slide, steps })));

function renew() {
  const list = element.querySelector('.wbc-review');
  element.querySelector('[data-big]')?.setAttribute('aria-expanded', large);
  if (!list || list.dataset.slide !== slide) { // another slide: what was said belongs to the former
    slide = list ? list.dataset.slide : null;
    last = Math.max(last, list ? Number(list.dataset.taken) : 0); // the list may have been built anew
    steps = [];
    undoing = false;
    at = null;
    clearTimeout(waiting);
    waiting = null;
    choose(null);
    return;
  }
  const taken = Number(list.dataset.taken);
  const before = steps.length;
  steps = steps.filter((step) => step.number > taken);
  steps.forEach(mark);
  if (steps.length) element.querySelector('[data-undo]').disabled = false;
  if (undoing && !steps.length && find(list.dataset.undone)) chosen = list.dataset.undone;
  const now = document.activeElement;
  const inside = now === document.body || element.contains(now);
  const more = 'undo' in now.dataset && !now.disabled; // who takes back several stays on the button
  choose(chosen, false, at ? 'end' : null);
  if (inside && !more) hold(withKeys);
  if (steps.length < before) send(); // what was said in the meantime, if anything
}

watch('value', renew);
renew(); // the first list may be there before this is
