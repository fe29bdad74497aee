"""An ISO made on the spot from Debian's packages that looks and behaves like Ubuntu's."""
