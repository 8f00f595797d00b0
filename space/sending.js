// What a visitor drops, pastes or chooses, looked at before gradio's own parts take it. They lose a photo that is dropped on
// another, take no folder, throw all away for one file that is too heavy, and say so in words of their own.
({say, heaviest, most}) => {
  const ONE = 'photo', BOXES = [ONE, 'fields', 'lab-files'], SHOWN = 5, LOOKED_AT = 5000; // names told; files of a folder
  // What browsers and systems do not always know for a picture.
  const KINDS = {avif: 'avif', bmp: 'bmp', gif: 'gif', heic: 'heic', heif: 'heif', j2k: 'jp2', jp2: 'jp2', jpeg: 'jpeg', jpg: 'jpeg',
    png: 'png', tif: 'tiff', tiff: 'tiff', webp: 'webp'};
  const inBoxes = BOXES.map(id => `#${id}`).join(',');
  const boxOf = part => part?.closest?.('.api-docs') ? undefined
    : part?.closest?.(inBoxes) ?? BOXES.map(id => document.getElementById(id)).find(box => box?.offsetParent);
  const fill = (text, values) => text.replace(/{(\w+)}/g, (_, name) => values[name]);
  const listed = files => {
    const names = files.slice(0, SHOWN).map(file => file.name).join(', ');
    return files.length > SHOWN ? fill(say.send_more, {names, number: files.length - SHOWN}) : names;
  };

  // Our words stand right under the box, until another photo comes or what is there is put away.
  const tell = (box, ...lines) => {
    const id = `${box.id}-told`, there = document.getElementById(id);
    if (!lines.length) return there?.remove();
    const place = there ?? Object.assign(document.createElement('div'), {id, className: 'wbc-sent'});
    if (place.previousElementSibling !== box) box.after(place);
    place.setAttribute('role', 'alert');
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

  // gradio takes files where it shows its place for them, not the camera's or the clipboard's.
  const source = number => document.querySelector(`#photo [data-testid=source-select] button:nth-of-type(${number})`);
  const takesFiles = () => source(1)?.classList.contains('selected');

  const ours = new WeakSet();
  const send = async (box, given, lost = []) => {
    const {good, heavy, strange} = sorted(given), lines = [];
    if (box.id === ONE && good.length > 1) lines.push(fill(say.send_single, {name: good[0].name}));
    if (heavy.length) lines.push(fill(say.send_heavy, {names: listed(heavy), limit: Math.floor(heaviest / 1e6)}));
    if (strange.length) lines.push(fill(say.send_strange, {names: listed(strange)}));
    if (lost.length) lines.push(fill(say.send_unread, {names: listed(lost)}));
    if (!given.length && !lost.length) lines.push(say.send_none);
    const tooMany = box.id === 'fields' ? say.fields_too_many : say.lab_too_many_files;
    if (box.id !== ONE && good.length > most) return tell(box, fill(tooMany, {given: good.length, files: most}));
    tell(box, ...lines);
    if (!good.length) return;
    if (box.id === ONE && !takesFiles()) source(1)?.click();
    const input = await until(() => box.isConnected && box.querySelector('input[type=file]'));
    if (!input) return tell(box, say.send_closed);
    const carried = new DataTransfer();
    for (const file of box.id === ONE ? good.slice(0, 1) : good) carried.items.add(file);
    input.files = carried.files;
    const change = new Event('change', {bubbles: true});
    ours.add(change);
    input.dispatchEvent(change);
  };

  // A folder gives all that lies in it and below, by name; what cannot be read keeps nothing else back.
  const inside = async (entry, files, lost) => {
    if (files.length >= LOOKED_AT) return lost.push(entry);
    try {
      if (entry.isFile) return files.push(await new Promise((done, failed) => entry.file(done, failed)));
      const reader = entry.createReader(), all = [];
      for (let some; (some = await new Promise((done, failed) => reader.readEntries(done, failed))).length;) all.push(...some);
      all.sort((one, other) => one.name.localeCompare(other.name, undefined, {numeric: true}));
      for (const one of all) await inside(one, files, lost);
    } catch {
      lost.push(entry);
    }
  };
  const drop = async (box, carried) => { // what is carried is to be had only until its event ends
    const items = [...carried.items].filter(item => item.kind === 'file').map(item => [item.webkitGetAsEntry?.(), item.getAsFile()]);
    const files = [], lost = [];
    for (const [entry, file] of items) {
      if (entry?.isDirectory) await inside(entry, files, lost);
      else files.push(file);
    }
    return send(box, files, lost);
  };

  const carries = event => event.dataTransfer?.types.includes('Files');
  document.addEventListener('dragover', event => {
    if (!carries(event)) return;
    event.preventDefault(); // beside a box, too: no browser leaves the page for a photo
    if (!boxOf(event.target)) event.dataTransfer.dropEffect = 'none';
  });
  document.addEventListener('drop', event => {
    const box = carries(event) && boxOf(event.target);
    if (!box) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    for (const part of box.querySelectorAll('*')) part.dispatchEvent(new DragEvent('dragleave')); // else a frame stays lit
    drop(box, event.dataTransfer);
  }, true);

  document.addEventListener('change', event => {
    if (ours.has(event) || !event.target.matches?.(`:is(${inBoxes}) input[type=file]`) || !event.target.files.length) return;
    const files = [...event.target.files], {good} = sorted(files), box = boxOf(event.target);
    if (files.length <= most && good.length === files.length && good.every((file, place) => file === files[place])) return tell(box);
    event.stopImmediatePropagation();
    event.target.value = '';
    send(box, files);
  }, true);

  document.addEventListener('paste', event => {
    const files = [...event.clipboardData.files], box = boxOf(event.target);
    const written = event.target.closest('input, textarea, [contenteditable]'); // text from a spreadsheet brings its picture along
    if (!box || (written && (!files.length || event.clipboardData.types.includes('text/plain')))) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (files.length) send(box, files);
    else tell(box, say.send_no_picture);
  }, true);

  document.addEventListener('click', event => {
    const pressed = event.target.closest?.('button'), one = document.getElementById(ONE);
    if (!pressed) return;
    if (pressed.matches('.wbc-examples button, #fields-example, #fields-again, #fields-back, #lab-clear, #photo button[title]'))
      for (const id of BOXES) if (document.getElementById(id)) tell(document.getElementById(id));
    const input = one?.querySelector('input[type=file]');
    if (pressed === source(1) && takesFiles() && input) { // gradio's puts photo and answer away, and opens nothing
      event.stopImmediatePropagation();
      input.click();
    } else if (pressed === source(3) && !navigator.clipboard?.read) { // as where the page is served without https
      event.stopImmediatePropagation();
      tell(one, say.send_clipboard_failed);
    }
  }, true);

  // gradio's buttons for clipboard and camera say nothing where they fail, and leave the error to the console.
  const told = new WeakSet();
  const watch = (thing, name, failed, came) => {
    const own = thing?.[name]?.bind(thing);
    if (own) thing[name] = (...given) => own(...given).then(got => { came(got); return got; }, error => {
      told.add(error);
      tell(document.getElementById(ONE), say[error.name === 'NotAllowedError' ? `${failed}_denied` : `${failed}_failed`]);
      throw error;
    });
  };
  const isPicture = item => item.types.some(type => type.startsWith('image/'));
  watch(navigator.clipboard, 'read', 'send_clipboard',
    items => tell(document.getElementById(ONE), ...items.some(isPicture) ? [] : [say.send_no_picture]));
  watch(navigator.mediaDevices, 'getUserMedia', 'send_camera', () => tell(document.getElementById(ONE)));
  addEventListener('unhandledrejection', event => told.has(event.reason) && event.preventDefault());

  // Nothing outlives the visit, a reviewed slide neither: who goes by mistake is asked.
  addEventListener('beforeunload', event => {
    if (Number(document.querySelector('.wbc-review')?.dataset.taken)) event.preventDefault();
  });
}
