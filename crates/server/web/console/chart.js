// A chart of the last fifteen minutes: lines in SVG, numbers beside it, and the same as a table for those who cannot see it.

import { clock, h, replace, table } from './dom.js'
import { secondsKept } from './numbers.js'

const [width, height] = [600, 120]
const gapMs = 5000

/** The smallest of 1, 2, 5 times a power of ten that is not below a number. */
export function roundUp (value) {
  if (!(value > 0)) return 1
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999)
}

/** Lines, with a pen lifted where nothing is known. */
function lineOf (points, from, top) {
  let [text, last] = ['', null]
  for (const { at, value } of points) {
    if (value === null || value === undefined) { last = null; continue }
    const x = (at - from) / (secondsKept * 1000) * width
    const y = height - Math.min(1, value / top) * height
    text += `${last !== null && at - last < gapMs ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`
    if (last === null || at - last >= gapMs) text += 'h0.01'
    last = at
  }
  return text
}

/**
 * `format`: a number as people read it. `least`: the top of the scale is not below it. The chart is drawn anew by `draw`,
 * with lines `{name, points: [{at, value}]}`.
 */
export function chart (title, { format, least = 1, none }) {
  const svg = h('svg', { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' })
  const [top, legend, note, rows] = [h('span', {}), h('ul', { class: 'legend' }), h('p', { class: 'note' }), h('div', {})]
  const when = h('span', {}, 'now')
  const details = h('details', { ontoggle: () => fill() }, h('summary', {}, 'As a table'), rows)
  const id = `c-${title.toLowerCase().replace(/[^a-z0-9]+/g, '-')}`
  let lines = []
  let pointed = null

  const fill = () => {
    if (!details.open || !lines.length) return
    const now = lines[0].points.at(-1)?.at ?? Date.now()
    const minutes = []
    for (let minute = 0; minute < secondsKept / 60; minute++) {
      const [from, to] = [now - (minute + 1) * 60000, now - minute * 60000]
      const cells = lines.map(({ points }) => {
        const known = points.filter(({ at, value }) => at > from && at <= to && value !== null && value !== undefined)
        return known.length ? format(known.reduce((total, { value }) => total + value, 0) / known.length) : '–'
      })
      if (cells.some((cell) => cell !== '–')) minutes.push([clock(to), ...cells])
    }
    replace(rows, table(`${title}: the mean of each minute, which ends at`, [['Until', ''], ...lines.map(({ name }) => [name, 'number'])], minutes))
  }

  const say = () => {
    const of = (points) => (pointed === null
      ? points.at(-1)
      : points.reduce((best, point) => Math.abs(point.at - pointed) < Math.abs((best?.at ?? 0) - pointed) ? point : best, null))
    const point = of(lines[0]?.points ?? [])
    when.textContent = pointed === null || !point ? 'now' : clock(point.at)
    replace(legend, lines.map(({ name, points }, index) => h('li', {},
      h('i', { class: `swatch line-${index}` }), name, ' ', h('b', {}, format(of(points)?.value)))))
  }

  const point = (event) => {
    const box = svg.getBoundingClientRect()
    const now = lines[0]?.points.at(-1)?.at
    pointed = now ? now - (1 - (event.clientX - box.left) / box.width) * secondsKept * 1000 : null
    draw(lines)
  }
  const plot = h('div', { class: 'plot', onpointermove: point, onpointerleave: () => { pointed = null; draw(lines) } }, svg)

  function draw (given) {
    lines = given
    const now = lines[0]?.points.at(-1)?.at ?? Date.now()
    const from = now - secondsKept * 1000
    const most = Math.max(least, ...lines.flatMap(({ points }) => points.map(({ value }) => value ?? 0)))
    const scale = roundUp(most)
    top.textContent = format(scale)
    const grid = [0, 0.5, 1].map((part) => h('line', { class: 'grid', x1: 0, x2: width, y1: part * height, y2: part * height }))
    const mark = pointed === null ? null : h('line', { class: 'mark', x1: (pointed - from) / (secondsKept * 1000) * width, x2: (pointed - from) / (secondsKept * 1000) * width, y1: 0, y2: height })
    replace(svg, grid, lines.map(({ points }, index) => h('path', { class: `line line-${index}`, d: lineOf(points, from, scale) })), mark)
    note.textContent = lines.some(({ points }) => points.some(({ value }) => value !== null && value !== undefined)) ? '' : none ?? 'Nothing yet.'
    say()
    fill()
  }

  return {
    element: h('section', { class: 'card chart', 'aria-labelledby': id }, h('h2', { id }, title), legend,
      h('div', { class: 'frame' }, h('div', { class: 'scale' }, top, h('span', {}, '0')), plot, note),
      h('div', { class: 'axis', 'aria-hidden': 'true' }, h('span', {}, '−15 min'), h('span', {}, '−10'), h('span', {}, '−5'), when), details),
    draw
  }
}
