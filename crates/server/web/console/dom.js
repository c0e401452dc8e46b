// Elements, made of text nodes and attributes only: nothing that comes from a server is ever read as HTML.

const svgNames = new Set(['svg', 'path', 'line', 'g', 'title'])

/** An element. Attributes that begin with `on` are listeners; `null`, `false` and `undefined` leave one out. */
export function h (name, attributes = {}, ...children) {
  const element = svgNames.has(name)
    ? document.createElementNS('http://www.w3.org/2000/svg', name)
    : document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value)
    else if (key === 'value') element.value = value
    else element.setAttribute(key, value === true ? '' : value)
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false))
  return element
}

export const replace = (element, ...children) => {
  element.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false))
  return element
}

/** A table that scrolls by itself where it is too wide. `columns`: [title, class]; `rows`: arrays of cells. */
export function table (caption, columns, rows, { showCaption = false } = {}) {
  return h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': `${caption}, table` },
    h('table', {},
      h('caption', { class: showCaption ? '' : 'hidden' }, caption),
      h('thead', {}, h('tr', {}, columns.map(([title, kind]) => h('th', { scope: 'col', class: kind }, title || h('span', { class: 'hidden' }, 'Actions'))))),
      h('tbody', {}, rows.map((cells) =>
        h('tr', {}, cells.map((cell, index) => h('td', { class: columns[index][1] }, cell ?? '–')))))))
}

/** Name and value pairs. */
export const facts = (pairs) =>
  h('dl', { class: 'facts' }, pairs.filter(Boolean).map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value ?? '–'))))

export const empty = (text) => h('p', { class: 'empty' }, text)
export const loading = (text = 'Loading …') => h('p', { class: 'empty loading', role: 'status' }, text)
export const failed = (error, again) => h('div', { class: 'failed', role: 'alert' },
  h('p', {}, error.message),
  again && h('button', { type: 'button', onclick: again }, 'Try again'))

export const tag = (text, kind = '') => h('span', { class: `tag ${kind}` }, text)

export const section = (title, ...children) => {
  const id = `s-${title.toLowerCase().replace(/[^a-z0-9]+/g, '-')}`
  return h('section', { class: 'card', 'aria-labelledby': id }, h('h2', { id }, title), ...children)
}

/** Loads into a place: what it says meanwhile, what came, or why nothing came with a way to try again. */
export async function load (place, ask, show) {
  const again = () => load(place, ask, show)
  if (!place.hasChildNodes()) replace(place, loading())
  try {
    const answer = await ask()
    replace(place, show(answer))
    return answer
  } catch (error) {
    if (error.name !== 'AbortError') replace(place, failed(error, again))
    return null
  }
}

/** A list that comes in pages: `ask(cursor)` gives `{items, next}`, `rows(items)` the table's rows. */
export function pages (place, caption, columns, ask, row, none) {
  const items = []
  const draw = (next) => replace(place,
    items.length ? table(caption, columns, items.map(row)) : empty(none),
    h('p', { class: 'below' },
      items.length > 0 && h('span', { class: 'muted', role: 'status' }, `${number(items.length)} shown${next ? '' : ', that is all'}`),
      next && h('button', { type: 'button', onclick: (event) => { event.target.disabled = true; more(next) } }, 'Show more')))
  const more = async (cursor) => {
    if (!place.hasChildNodes()) replace(place, loading())
    try {
      const page = await ask(cursor)
      items.push(...page.items)
      draw(page.next)
    } catch (error) {
      if (error.name !== 'AbortError') replace(place, failed(error, () => { replace(place); more(cursor) }))
    }
  }
  return more(null)
}

/** An address of the console, made of parts that may hold anything. */
export const link = (...parts) => `#/${parts.map(encodeURIComponent).join('/')}`
export const userLink = (id) => h('a', { href: link('users', id) }, id)

// Numbers and times, the same everywhere.

const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 })
export const number = (value) => value === null || value === undefined ? '–' : grouped.format(value)

export function decimal (value) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–'
  if (value === 0 || Math.abs(value) >= 100) return grouped.format(value)
  return value.toLocaleString('en', { maximumSignificantDigits: 3 })
}

export function bytes (value) {
  if (value === null || value === undefined) return '–'
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  const power = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(value) / 10))
  return `${decimal(value / 1024 ** power)} ${units[power]}`
}

export function seconds (value) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–'
  if (value < 0.001) return value === 0 ? '0 s' : `${decimal(value * 1e6)} µs`
  if (value < 1) return `${decimal(value * 1000)} ms`
  if (value < 10 && !Number.isInteger(value)) return `${decimal(value)} s`
  const whole = Math.round(value)
  const parts = [[Math.floor(whole / 86400), 'd'], [Math.floor(whole / 3600) % 24, 'h'], [Math.floor(whole / 60) % 60, 'min'], [whole % 60, 's']]
  const first = parts.findIndex(([count]) => count > 0)
  return first < 0 ? '0 s' : parts.slice(first, first + 2).filter(([count]) => count > 0).map(([count, unit]) => `${count} ${unit}`).join(' ')
}

export const clock = (date) => new Date(date).toLocaleTimeString('en-GB')
export function moment (text) {
  const date = new Date(text)
  if (Number.isNaN(date.getTime())) return String(text)
  const day = date.toDateString() === new Date().toDateString() ? '' : `${date.toLocaleDateString('en-CA')} `
  return h('time', { datetime: date.toISOString(), title: date.toISOString() }, day + clock(date))
}
