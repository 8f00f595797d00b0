// Look through the cells: choose one, say what it is with a button or a key. Python counts and sends the list anew.
let chosen = null; // "image-cell"
let next = null; // what is chosen once the list is there again

const cells = () => [...element.querySelectorAll('button[data-cell]')];
const find = (id) => cells().find((cell) => cell.dataset.cell === id);

function choose(id, focus) {
  const cell = find(id);
  chosen = cell ? id : null;
  cells().forEach((one) => one.setAttribute('aria-pressed', one === cell));
  element.querySelectorAll('[data-to]').forEach((button) => { button.disabled = !cell; });
  document.querySelectorAll('.wbc-photos [data-cell]').forEach((box) => box.classList.toggle('wbc-chosen', box.dataset.cell === id));
  if (!cell) return;
  element.querySelector('.wbc-told').textContent = `${cell.getAttribute('aria-label')}. ${cell.dataset.told}`;
  element.querySelector('.wbc-big').className = `wbc-big wbc-c${id}`;
  if (focus) cell.focus({ preventScroll: true });
}

function say(to) {
  if (!chosen) return;
  const cell = find(chosen);
  const group = [...cell.closest('.wbc-group').querySelectorAll('button[data-cell]')];
  const open = group.filter((one) => one === cell || one.textContent !== '✓');
  const after = open[open.indexOf(cell) + 1] || open[open.indexOf(cell) - 1] || cell;
  next = after.dataset.cell;
  trigger('submit', { cell: chosen, to });
}

element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.cell) choose(button.dataset.cell, true);
  else if (button.dataset.to) say(button.dataset.to);
  else if ('undo' in button.dataset) { next = chosen; trigger('submit', { undo: true }); }
});

element.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const button = element.querySelectorAll('[data-to]')[Number(event.key) - 1];
  if (button && chosen) { event.preventDefault(); say(button.dataset.to); return; }
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const at = event.target.closest('button[data-cell]');
  if (!step || !at) return;
  event.preventDefault();
  const all = cells();
  choose((all[all.indexOf(at) + step] || at).dataset.cell, true);
});

document.addEventListener('wbc-cell', (event) => {
  choose(event.detail, true);
  element.querySelector('.wbc-panel')?.scrollIntoView({ block: 'nearest' });
});

watch('value', () => { choose(next, next !== null); next = null; });
