// A picture to send, painted by the browser.

/** A lake in the evening. */
function paint () {
  const [width, height] = [1200, 800]
  const canvas = Object.assign(document.createElement('canvas'), { width, height })
  const context = canvas.getContext('2d')
  const fill = (from, to, ...colours) => {
    const gradient = context.createLinearGradient(0, from, 0, to)
    for (const [index, colour] of colours.entries()) gradient.addColorStop(index / (colours.length - 1), colour)
    context.fillStyle = gradient
  }
  const hills = (base, rise, pitch, shift) => {
    context.beginPath()
    context.moveTo(0, base)
    for (let x = 0; x <= width; x += 8) context.lineTo(x, base - rise * (0.55 + 0.3 * Math.sin(x / pitch + shift) + 0.15 * Math.sin(x / pitch * 2.7 + shift * 3)))
    context.lineTo(width, base)
    context.fill()
  }
  fill(0, 470, '#2b3a67', '#a05a86', '#f2906b', '#ffd58a')
  context.fillRect(0, 0, width, 480)
  context.fillStyle = '#fff1c9'
  context.beginPath()
  context.arc(760, 395, 46, 0, 7)
  context.fill()
  for (const [rise, pitch, shift, far, near] of [[230, 210, 1, '#8a5a86', '#b8728a'], [150, 150, 4, '#5d4374', '#7c5280'], [80, 90, 2, '#33294f', '#43335e']]) {
    fill(480 - rise, 480, far, near)
    hills(480, rise, pitch, shift)
  }
  fill(480, 800, '#f0a274', '#8d5c86', '#2a3560')
  context.fillRect(0, 480, width, 320)
  for (let line = 0; line < 90; line++) {
    const y = 484 + line * line / 27
    const spread = 30 + line * 2.2
    context.fillStyle = `rgb(255 236 190 / ${0.5 - line / 220})`
    context.fillRect(760 - spread * (0.4 + 0.6 * Math.abs(Math.sin(line * 1.9))), y, spread * (0.7 + Math.abs(Math.sin(line * 2.3))), 1.5 + line / 40)
  }
  context.fillStyle = '#1d1733'
  context.fillRect(0, 700, 330, 16)
  for (const x of [40, 140, 240, 315]) context.fillRect(x, 700, 10, 70)
  return canvas.toDataURL('image/jpeg', 0.9).split(',')[1]
}

/** A JPEG. */
export const painted = async (page) => Buffer.from(await page.evaluate(paint), 'base64')
