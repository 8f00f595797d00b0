// What a visitor drops, pastes or chooses, looked at before gradio's own parts take it. They lose a photo that is dropped on
// another, take no folder, throw all away for one file that is too heavy, and say so in words of their own.
({languages, heaviest}) => {
  const say = languages[navigator.language.slice(0, 2)] ?? languages.en;
  const ONE = 'photo', BOXES = [ONE, 'fields', 'lab-files'], SHOWN = 5;
  // What browsers and systems do not always know for a picture.
  const KINDS = {avif: 'avif', bmp: 'bmp', gif: 'gif', heic: 'heic', heif: 'heif', j2k: 'jp2', jp2: 'jp2', jpeg: 'jpeg', jpg: 'jpeg',
    png: 'png', tif: 'tiff', tiff: 'tiff', webp: 'webp'};
  const inBoxes = BOXES.map(id => `#${id}`).join(',');
  const boxOf = part => part?.closest?.(inBoxes) ?? BOXES.map(id => document.getElementById(id)).find(box => box?.checkVisibility());
  const fill = (text, values) => text.replace(/{(\w+)}/g, (_, name) => values[name]);
  const listed = files => {
    const names = files.slice(0, SHOWN).map(file => file.name).join(', ');
    return files.length > SHOWN ? fill(say.send_more, {names, number: files.length - SHOWN}) : names;
  };

  // Our words stand right under the box, until the next photo comes.
  const tell = (box, ...lines) => {
    const id = `${box.id}-told`, there = document.getElementById(id);
    if (!lines.length) return there?.remove();
    const place = there ?? Object.assign(document.createElement('div'), {id, className: 'wbc-sent'});
    if (place.previousElementSibling !== box) box.after(place);
    place.role = 'alert';
    place.replaceChildren(...lines.map(text => Object.assign(document.createElement('p'), {textContent: text})));
  };

  const asPicture = file => {
    const kind = KINDS[file.name.split('.').pop().toLowerCase()];
    return file.type.startsWith('image/') || !kind ? file
      : new File([file], file.name, {type: `image/${kind}`, lastModified: file.lastModified});
  };
  const sorted = given => {
    const files = given.map(asPicture), strange = files.filter(file => !file.type.startsWith('image/'));
    const heavy = files.filter(file => !strange.includes(file) && file.size > heaviest);
    return {good: files.filter(file => !strange.includes(file) && !heavy.includes(file)), heavy, strange};
  };
  const until = async (found, tries = 40) => {
    for (; tries && !found(); tries--) await new Promise(done => setTimeout(done, 50));
    return found();
  };

  const ours = new WeakSet();
  const send = async (box, given) => {
    const {good, heavy, strange} = sorted(given), lines = [];
    if (box.id === ONE && good.length > 1) lines.push(fill(say.send_single, {name: good[0].name}));
    if (heavy.length) lines.push(fill(say.send_heavy, {names: listed(heavy), limit: Math.floor(heaviest / 1e6)}));
    if (strange.length) lines.push(fill(say.send_strange, {names: listed(strange)}));
    if (!given.length) lines.push(say.send_none);
    tell(box, ...lines);
    if (!good.length) return;
    const input = await until(() => box.isConnected && box.querySelector('input[type=file]'));
    if (!input) return tell(box, say.send_closed);
    const carried = new DataTransfer();
    for (const file of box.id === ONE ? good.slice(0, 1) : good) carried.items.add(file);
    input.files = carried.files;
    const change = new Event('change', {bubbles: true});
    ours.add(change);
    input.dispatchEvent(change);
  };

  // A folder gives all that lies in it and below, by name.
  const inside = async entry => {
    if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
    const reader = entry.createReader(), all = [];
    for (let some; (some = await new Promise((done, failed) => reader.readEntries(done, failed))).length;) all.push(...some);
    all.sort((one, other) => one.name.localeCompare(other.name, undefined, {numeric: true}));
    const found = [];
    for (const one of all) found.push(...await inside(one));
    return found;
  };
  const collect = async carried => { // what is carried is to be had only until this event ends
    const items = [...carried.items].filter(item => item.kind === 'file').map(item => [item.webkitGetAsEntry?.(), item.getAsFile()]);
    const found = [];
    for (const [entry, file] of items) found.push(...(entry ? await inside(entry) : [file]));
    return found;
  };

  const carries = event => event.dataTransfer?.types.includes('Files');
  document.addEventListener('dragover', event => carries(event) && event.preventDefault()); // beside a box, too: no browser leaves
  document.addEventListener('drop', event => {
    if (!carries(event)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const box = boxOf(event.target);
    for (const part of box?.querySelectorAll('*') ?? []) part.dispatchEvent(new DragEvent('dragleave')); // else a frame stays lit
    if (box) collect(event.dataTransfer).then(files => send(box, files)).catch(() => tell(box, say.send_unread));
  }, true);

  document.addEventListener('change', event => {
    if (ours.has(event) || !event.target.matches?.(`:is(${inBoxes}) input[type=file]`) || !event.target.files.length) return;
    const files = [...event.target.files], {good} = sorted(files), box = boxOf(event.target);
    if (good.length === files.length && good.every((file, place) => file === files[place])) return tell(box);
    event.stopImmediatePropagation();
    event.target.value = '';
    send(box, files);
  }, true);

  document.addEventListener('paste', event => {
    const files = [...event.clipboardData.files], box = boxOf(event.target);
    if (!box || (!files.length && event.target.closest('input, textarea, [contenteditable]'))) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (files.length) send(box, files);
    else tell(box, say.send_no_picture);
  }, true);

  // gradio's button to choose another photo puts photo and answer away, and opens nothing.
  document.addEventListener('click', event => {
    const input = event.target.closest?.('#photo [data-testid=source-select] button:first-child') && document.querySelector('#photo input[type=file]');
    if (!input) return;
    event.stopImmediatePropagation();
    input.click();
  }, true);

  // gradio's buttons for clipboard and camera say nothing where they fail, and leave the error to the console.
  const told = new WeakSet();
  const watch = (thing, name, failed, came = () => {}) => {
    const own = thing?.[name]?.bind(thing);
    if (own) thing[name] = (...given) => own(...given).then(got => { came(got); return got; }, error => {
      told.add(error);
      tell(document.getElementById(ONE), say[error.name === 'NotAllowedError' ? `${failed}_denied` : `${failed}_failed`]);
      throw error;
    });
  };
  watch(navigator.clipboard, 'read', 'send_clipboard',
    items => tell(document.getElementById(ONE), ...items.some(item => item.types.some(type => type.startsWith('image/'))) ? [] : [say.send_no_picture]));
  watch(navigator.mediaDevices, 'getUserMedia', 'send_camera');
  addEventListener('unhandledrejection', event => told.has(event.reason) && event.preventDefault());

  // Nothing outlives the visit, a reviewed slide neither: who goes by mistake is asked.
  addEventListener('beforeunload', event => {
    if (Number(document.querySelector('.wbc-review')?.dataset.taken)) event.preventDefault();
  });
}
