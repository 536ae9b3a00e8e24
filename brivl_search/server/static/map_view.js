// The geometry of the map: what lies where on the canvas, which photos have room for their thumbnail, who is nearest.

const MARGIN = 0.88; // of the canvas that the whole collection fills
export const FARTHEST = 1;
export const NEAREST = 400;

/** Points in -1..1 both ways, seen through a window that can be moved and zoomed; the axes stretch with the canvas. */
export class View {
  constructor(x, y) {
    this.x = Float32Array.from(x);
    this.y = Float32Array.from(y, (value) => -value); // up is up
    this.width = this.height = 1;
    this.home();
  }

  home() {
    this.zoom = FARTHEST;
    this.centre = [0, 0];
  }

  get scale() {
    return [(this.width / 2) * MARGIN * this.zoom, (this.height / 2) * MARGIN * this.zoom];
  }

  /** Canvas position of point n, in CSS pixels. */
  at(n) {
    const [sx, sy] = this.scale;
    return [this.width / 2 + (this.x[n] - this.centre[0]) * sx, this.height / 2 + (this.y[n] - this.centre[1]) * sy];
  }

  pan(dx, dy) {
    const [sx, sy] = this.scale;
    this.#lookAt(this.centre[0] - dx / sx, this.centre[1] - dy / sy);
  }

  /** Zoom by a factor with the point under (px, py) staying where it is. */
  zoomBy(factor, px = this.width / 2, py = this.height / 2) {
    const [sx, sy] = this.scale;
    const [wx, wy] = [this.centre[0] + (px - this.width / 2) / sx, this.centre[1] + (py - this.height / 2) / sy];
    this.zoom = Math.min(Math.max(this.zoom * factor, FARTHEST), NEAREST);
    const [nx, ny] = this.scale;
    this.#lookAt(wx - (px - this.width / 2) / nx, wy - (py - this.height / 2) / ny);
  }

  /** Move just enough that point n is inside, `margin` pixels from the edge. */
  bring(n, margin = 90) {
    const [px, py] = this.at(n);
    const mx = Math.min(margin, this.width / 4);
    const my = Math.min(margin, this.height / 4);
    this.pan(Math.min(0, this.width - mx - px) + Math.max(0, mx - px), Math.min(0, this.height - my - py) + Math.max(0, my - py));
  }

  /** The collection never leaves the window altogether. */
  #lookAt(cx, cy) {
    const room = 1 - 1 / this.zoom + 0.15;
    this.centre = [Math.min(Math.max(cx, -room), room), Math.min(Math.max(cy, -room), room)];
  }

  /** Side of a thumbnail in pixels: larger from near. */
  get side() {
    const small = Math.min(this.width, this.height) < 500 ? 44 : 58;
    return Math.min(small + 13 * Math.log2(this.zoom), 132);
  }

  /**
   * The points whose thumbnails fit without covering one another, those in `first` before the rest. Depends on the zoom
   * alone and not on the place, so that nothing flickers while the map is dragged.
   */
  place(first) {
    const side = this.side;
    const [sx, sy] = this.scale;
    const taken = new Map();
    const placed = [];
    const claim = (n) => {
      const px = this.x[n] * sx;
      const py = this.y[n] * sy;
      const column = Math.floor(px / side);
      const row = Math.floor(py / side);
      for (let r = row - 1; r <= row + 1; r++) {
        for (let c = column - 1; c <= column + 1; c++) {
          const other = taken.get(c * 1e6 + r);
          if (other !== undefined && Math.abs(this.x[other] * sx - px) < side && Math.abs(this.y[other] * sy - py) < side) return;
        }
      }
      taken.set(column * 1e6 + row, n); // two in one cell would be nearer than a side
      placed.push(n);
    };
    for (const n of first) claim(n);
    const firsts = new Set(first);
    for (let n = 0; n < this.x.length; n++) if (!firsts.has(n)) claim(n);
    return placed;
  }

  inside(n, margin = 0) {
    const [px, py] = this.at(n);
    return px >= -margin && py >= -margin && px <= this.width + margin && py <= this.height + margin;
  }

  /** The thumbnail under a position, else the nearest point within `reach` pixels, else -1. */
  under(px, py, placed, reach = 12) {
    const half = this.side / 2;
    for (const n of placed) {
      const [x, y] = this.at(n);
      if (Math.abs(x - px) <= half && Math.abs(y - py) <= half) return n;
    }
    let best = -1;
    let least = reach * reach;
    for (let n = 0; n < this.x.length; n++) {
      const [x, y] = this.at(n);
      const away = (x - px) ** 2 + (y - py) ** 2;
      if (away < least) [best, least] = [n, away];
    }
    return best;
  }

  /** The nearest of `points` that lies in a direction from point n, rather ahead than aside; -1 if there is none. */
  towards(n, dx, dy, points) {
    const [x, y] = this.at(n);
    let best = -1;
    let least = Infinity;
    for (const other of points) {
      if (other === n) continue;
      const [ox, oy] = this.at(other);
      const ahead = (ox - x) * dx + (oy - y) * dy;
      const aside = Math.abs((ox - x) * dy) + Math.abs((oy - y) * dx);
      if (ahead <= 0 || aside > 2 * ahead) continue;
      const cost = ahead + 1.5 * aside;
      if (cost < least) [best, least] = [other, cost];
    }
    return best;
  }

  /** The point nearest to the middle of the window. */
  middle(points) {
    let best = -1;
    let least = Infinity;
    for (const n of points) {
      const [x, y] = this.at(n);
      const away = (x - this.width / 2) ** 2 + (y - this.height / 2) ** 2;
      if (away < least) [best, least] = [n, away];
    }
    return best;
  }
}
