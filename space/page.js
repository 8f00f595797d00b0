// Run once the page stands: what gradio's own parts lack.
({language, say: {parts, send_place: place}}) => {
  // Named as they read, by what stands in them; where nothing is to read, as what stands beside them.
  const text = part => part.textContent.replace(/\s+/g, ' ').trim();
  const name = () => {
    const head = document.querySelector('h1');
    if (head && document.title !== text(head)) document.title = text(head); // gradio's own is not translated
    // gradio names whatever language the browser has, and speaks it; the page may not.
    if (document.documentElement.lang !== language) document.documentElement.lang = language;
    for (const part of document.querySelectorAll(':is(#fields, #lab-files) [data-testid=upload-text]')) {
      if (part.querySelector('.wbc-place')) continue;
      for (const one of part.childNodes) if (one.nodeType === Node.TEXT_NODE) one.data = '';
      for (const one of part.querySelectorAll(':scope > span:not([data-testid])')) one.style.display = 'none';
      part.append(Object.assign(document.createElement('p'), {className: 'wbc-place', textContent: place}));
    }
    for (const button of document.querySelectorAll('button[aria-dropeffect][aria-label]'))
      if (text(button)) button.removeAttribute('aria-label');
    for (const part of document.querySelectorAll('div.empty[aria-label]')) part.removeAttribute('aria-label'); // in English
    for (const [english, own] of Object.entries(parts)) {
      for (const part of document.querySelectorAll(`[aria-label="${english}"]`)) part.setAttribute('aria-label', own);
      for (const part of document.querySelectorAll(`[title="${english}"]`)) part.title = own;
    }
    for (const part of document.querySelectorAll('#photo button > .wrap')) // the camera's, its text alone
      for (const line of part.childNodes) if (parts[line.data?.trim()]) line.data = parts[line.data.trim()];
    for (const picture of document.querySelectorAll('.wbc-examples img[alt]:not([alt=""])')) picture.alt = ''; // its button is named
    for (const part of document.querySelectorAll('.api-docs :is(button, input)'))
      if (!text(part) && !part.ariaLabel && !part.labels?.length) part.ariaLabel = text(part.parentElement) || 'Close';
    for (const part of document.querySelectorAll('.api-docs li.snippet:not([role])')) part.role = 'presentation';
    for (const part of document.querySelectorAll('.api-docs pre:not([tabindex])')) part.tabIndex = 0;
  };
  // A Cancel goes when the work ends. Where it had the focus, what had it before has it again: the next Tab goes on from there,
  // not from the page's top.
  let before = null, at = null;
  const seen = part => part?.isConnected && part.checkVisibility() && !part.disabled;
  document.addEventListener('focusin', event => { if (event.target !== at) [before, at] = [at, event.target]; });
  document.addEventListener('pointerdown', event => { if (at && !at.contains(event.target)) at = null; });
  const keep = () => {
    if (document.activeElement !== document.body || !at?.matches('#fields-cancel, #lab-cancel') || seen(at)) return;
    (seen(before) ? before : document.querySelector('[role=tab][aria-selected=true]'))?.focus({preventScroll: true});
  };
  new MutationObserver(() => { name(); keep(); })
    .observe(document.body, {childList: true, subtree: true, attributes: true, attributeFilter: ['aria-label']});
  name();
  // gradio's own button stands unseen in its own foot. Where the address asks for the API page gradio 6.31 takes it for shown
  // but does not load it, until the button is pressed again.
  const press = () => document.querySelector('button.show-api')?.click();
  document.addEventListener('click', event => event.target.closest?.('[data-api]') && press());
  if (new URLSearchParams(location.search).get('view') === 'api') {
    const wait = setInterval(() => document.querySelector('.api-docs') ? clearInterval(wait) : press(), 500);
  }
}
